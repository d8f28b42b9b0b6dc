/** Probes that an unknown client sends to the cover of dpi/tcp-wnd, and the expected responses. */
import { readFileSync } from 'node:fs'
import type { Host } from '../../testkit/netns.ts'
import { sleep } from '../../testkit/wait.ts'

/** Time limit for the end of a connection, where one is expected. */
const END_MS = 20_000
/** Time for which a silent server is observed. */
const SILENCE_MS = 700

export interface Probe {
  readonly name: string
  /** Data to send, in pieces with a pause in between. */
  readonly parts: readonly string[]
  /** The recorded result: whether the connection stays open, and the response. */
  readonly open: boolean
  readonly response: string
}

interface Sample {
  readonly name: string
  readonly request: string
  readonly response: string
  readonly end: string
}

const samples: readonly Sample[] = JSON.parse(readFileSync('test/vectors/http_samples.json', 'utf8')).cover

/** Removes the date of a response. */
export const undated = (text: string): string => text.replace(/\r\nDate: [^\r]*\r\n/, '\r\nDate: *\r\n')

export const PROBES: readonly Probe[] = samples.map(({ name, request, response, end }) => ({
  name,
  parts: request === '' ? [] : request.split(' <then> '),
  open: end.startsWith('still open'),
  response: undated(response),
}))

/** A probe's outcome as text. */
export const outcome = (response: string, end: 'open' | 'fin' | 'reset' | 'closed'): string => `${end}: ${response}`

/**
 * Runs one probe.
 * @returns how the connection ended, and the response without its date
 */
export async function probe(from: Host, address: string, port: number, { parts, open }: Probe): Promise<string> {
  const end = await from.dial(address, port)
  for (const [index, part] of parts.entries()) {
    if (index > 0) await sleep(SILENCE_MS)
    await end.send(part).catch(() => {})
  }
  const ending = await Promise.race([end.ending, sleep(open ? SILENCE_MS : END_MS).then(() => undefined)])
  const text = undated(end.text())
  end.destroy()
  return outcome(text, ending?.kind ?? 'open')
}
