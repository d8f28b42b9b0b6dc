/** Captures the packets on a host's interface with tshark. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import type { Host } from '../../testkit/netns.ts'
import { waitFor } from '../../testkit/wait.ts'

/** The reason why nothing can be captured; undefined if it can. */
export const tsharkProblem: string | undefined =
  spawnSync('tshark', ['--version']).status === 0 ? undefined : 'there is no tshark program'

const START_MS = 30_000
/** A port without a listener: packets sent there show that the capture runs. */
const DISCARD_PORT = 9
/** Captured packets are printed within this time. */
const FLUSH_MS = 20_000

const FIELDS = {
  from: 'ip.src',
  from6: 'ipv6.src',
  sourcePort: 'tcp.srcport',
  targetPort: 'tcp.dstport',
  flags: 'tcp.flags',
  seq: 'tcp.seq_raw',
  ack: 'tcp.ack_raw',
  length: 'tcp.len',
  window: 'tcp.window_size_value',
  headerLength: 'tcp.hdr_len',
  checksum: 'tcp.checksum.status',
  ipChecksum: 'ip.checksum.status',
  payload: 'tcp.payload',
} as const
type Field = keyof typeof FIELDS

/** One TCP packet, with the fields as tshark prints them. */
export type Captured = Readonly<Record<Field, string>>

/** tcp.flags */
export const Flag = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 } as const
export const flagsOf = (packet: Captured): number => Number(packet.flags)
/** tcp.checksum.status */
export const CHECKSUM_GOOD = '1'

/** A capture of TCP packets from or to a port. */
export class Sniffer {
  readonly #child: ChildProcess
  readonly #host: Host
  readonly #port: string
  #text = ''
  #noise = ''
  #closed = false

  constructor(host: Host, port: number) {
    this.#host = host
    this.#port = String(port)
    const filter = `tcp port ${port} or tcp port ${DISCARD_PORT}`
    const fields = Object.values(FIELDS).flatMap((field) => ['-e', field])
    const checks = [
      '-o',
      'tcp.check_checksum:TRUE',
      '-o',
      'ip.check_checksum:TRUE',
      '-o',
      'tcp.desegment_tcp_streams:FALSE',
    ]
    this.#child = spawn(
      'ip',
      [
        ...['netns', 'exec', host.namespace.name, 'tshark', '-l', '-n', '-Q', '-B', '16', '-i', 'eth0', '-f', filter],
        ...[...checks, '-T', 'fields', '-E', 'separator=;', '-E', 'occurrence=f', ...fields],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#text += text
    })
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#noise += text
    })
    this.#child.once('close', () => {
      this.#closed = true
    })
  }

  /** Waits until the capture runs. `to`: any host on the link. */
  async started(to: string): Promise<void> {
    await waitFor(
      'tshark captures',
      async () => {
        if (this.#closed) throw new Error(this.#noise)
        const refused = await this.#host.dial(to, DISCARD_PORT).catch(() => undefined)
        refused?.destroy()
        return this.#text.includes('\n')
      },
      START_MS,
    )
  }

  /** Packets captured so far. */
  get packets(): Captured[] {
    const names = Object.keys(FIELDS) as Field[]
    const complete = this.#text.slice(0, this.#text.lastIndexOf('\n') + 1)
    return complete
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => {
        const values = line.split(';')
        return Object.fromEntries(names.map((name, i) => [name, values[i] ?? ''])) as Captured
      })
      .filter(({ sourcePort, targetPort }) => sourcePort === this.#port || targetPort === this.#port)
  }

  /** Waits until tshark has printed enough of the captured packets. */
  async settle(enough: (packets: readonly Captured[]) => boolean): Promise<Captured[]> {
    await waitFor('tshark writes', () => enough(this.packets), FLUSH_MS)
    return this.packets
  }

  async close(): Promise<void> {
    this.#child.kill('SIGINT')
    await waitFor('tshark ends', () => this.#closed, FLUSH_MS).catch(() => this.#child.kill('SIGKILL'))
  }
}
