/**
 * The network of `bench ip`: two namespaces joined by an emulated IP link (testkit/tun-link.ts), traffic generators in
 * both, and flows through it: kernel TCP with a given congestion control, or a tunnel.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { Agent } from '../testkit/agent.ts'
import { startTunLink, type TunLink } from '../testkit/emulator.ts'
import { Namespace } from '../testkit/namespace.ts'
import { freePort, type Place } from '../testkit/process.ts'
import { TUN_DEVICE, type TunCounters, type TunShape } from '../testkit/tun-link.ts'
import { cpuSeconds, type Ends, type Pair, startPair } from './peers.ts'

const LEFT = '10.204.0.1'
const RIGHT = '10.204.0.2'
/** Windows that do not limit kernel TCP at 200 ms and 3 Gbit/s. */
const TCP_BUFFER_BYTES = 128 << 20

const ALLOWED = '/proc/sys/net/ipv4/tcp_allowed_congestion_control'

/**
 * Lets namespaces use congestion controls that the kernel keeps for the host (CUBIC where it is not the default), until
 * this process ends.
 */
export function allowControls(names: readonly string[]): void {
  const allowed = readFileSync(ALLOWED, 'utf8').trim()
  const missing = names.filter((name) => !allowed.split(' ').includes(name))
  if (missing.length === 0) return
  writeFileSync(ALLOWED, `${allowed} ${missing.join(' ')}`)
  process.on('exit', () => writeFileSync(ALLOWED, allowed))
}

export type Direction = 'up' | 'down'

/** Kernel TCP, or a pair of tunnel endpoints. */
export type Column = { readonly name: string } & ({ readonly tcp: string } | { readonly pair: Pair })

/** Bytes delivered, and what they cost, since the flow started. */
export interface Progress {
  readonly bytes: number
  /** CPU seconds of the tunnel's endpoints. */
  readonly clientCpu: number
  readonly serverCpu: number
}

/** A flow that can be started. */
export interface Flow {
  start(direction: Direction, connections: number): Promise<void>
  progress(): Promise<Progress>
  /** Echoes through the same path, see testkit/flow.ts. */
  echo(everyMs: number, messages: number): Promise<readonly number[]>
  /** @returns error of the flow, if any */
  close(): Promise<string | undefined>
}

/** Two namespaces and the link between them. */
export class Network {
  readonly #left: Namespace
  readonly #right: Namespace
  readonly #link: TunLink

  private constructor(left: Namespace, right: Namespace, link: TunLink) {
    this.#left = left
    this.#right = right
    this.#link = link
  }

  static async open(up: TunShape, down: TunShape, seed: number): Promise<Network> {
    const left = new Namespace('left')
    const right = new Namespace('right')
    try {
      const link = await startTunLink({ left: left.name, right: right.name, up, down, seed })
      for (const [namespace, address] of [
        [left, LEFT],
        [right, RIGHT],
      ] as const) {
        namespace.ip(`addr add ${address}/24 dev ${TUN_DEVICE}\nlink set ${TUN_DEVICE} txqueuelen 10000 up`)
        const sizes = `4096 262144 ${TCP_BUFFER_BYTES}`
        for (const key of ['tcp_rmem', 'tcp_wmem']) {
          namespace.run(['sh', '-c', `echo ${sizes} > /proc/sys/net/ipv4/${key}`])
        }
        // no metrics of an earlier connection
        namespace.sysctl('net/ipv4/tcp_no_metrics_save', 1)
      }
      return new Network(left, right, link)
    } catch (error) {
      left.remove()
      right.remove()
      throw error
    }
  }

  get emulatorCpu(): number {
    return cpuSeconds(this.#link.pid)
  }

  counters(): Promise<TunCounters> {
    return this.#link.counters()
  }

  async close(): Promise<void> {
    await this.#link.close()
    this.#left.remove()
    this.#right.remove()
  }

  /** Makes a flow ready: for a tunnel both endpoints run. */
  async flow(column: Column): Promise<Flow> {
    // read by the kernel when a socket is opened
    const setControl = (): void => {
      const control = 'tcp' in column ? column.tcp : 'cubic'
      for (const namespace of [this.#left, this.#right]) {
        namespace.run(['sh', '-c', `echo ${control} > /proc/sys/net/ipv4/tcp_congestion_control`])
      }
    }
    const enter = (namespace: Namespace): readonly string[] => ['ip', 'netns', 'exec', namespace.name]
    const agents: Agents = { left: new Agent(enter(this.#left)), right: new Agent(enter(this.#right)) }
    try {
      setControl()
      if ('tcp' in column) {
        const port = await agents.right.target(RIGHT)
        return makeFlow(agents, { host: RIGHT, port }, undefined, setControl)
      }
      const target = await agents.right.target()
      const place = (namespace: Namespace, agent: Agent): Place => ({ command: enter(namespace), get: agent.get })
      const places = { client: place(this.#left, agents.left), server: place(this.#right, agents.right) }
      const ends = await startPair(column.pair, { target, udpPort: await freePort(), host: RIGHT, places })
      return makeFlow(agents, { host: '127.0.0.1', port: ends.port }, ends, setControl)
    } catch (error) {
      await closeAgents(agents)
      throw error
    }
  }
}

interface Agents {
  readonly left: Agent
  readonly right: Agent
}

async function closeAgents({ left, right }: Agents): Promise<void> {
  await Promise.all([left.close(), right.close()])
}

function makeFlow(
  agents: Agents,
  where: { readonly host: string; readonly port: number },
  ends: Ends | undefined,
  setControl: () => void,
): Flow {
  const { left, right } = agents
  let isUpload = true
  const cpu = (pid: number | undefined): number => (pid === undefined ? Number.NaN : cpuSeconds(pid))
  return {
    async start(direction, connections) {
      isUpload = direction === 'up'
      setControl()
      await left.flow(isUpload ? 'pour' : 'download', where, connections)
    },
    progress: async () => ({
      bytes: await (isUpload ? right.discarded() : left.received()),
      clientCpu: cpu(ends?.clientPid),
      serverCpu: cpu(ends?.serverPid),
    }),
    echo: async (everyMs, messages) => (await left.echo(where, everyMs, messages)).times,
    async close() {
      const failure = (await left.stop()) ?? ends?.failure()
      await ends?.close()
      await closeAgents(agents)
      return failure
    },
  }
}
