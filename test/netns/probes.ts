/** What a stranger may say to the cover of dpi/tcp-wnd, and what comes back. */
import { readFileSync } from 'node:fs'
import type { Host } from '../../testkit/netns.ts'
import { sleep } from '../../testkit/wait.ts'

/** How long the end of a connection is waited for, where there is one. */
const END_MS = 20_000
/** A server that says nothing is watched for so long. */
const SILENCE_MS = 700

export interface Probe {
  readonly name: string
  /** What is sent, in pieces with a pause between. */
  readonly parts: readonly string[]
  /** As recorded: whether the connection stays open, and the answer. */
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

/** The date of an answer is that of the moment. */
export const undated = (text: string): string => text.replace(/\r\nDate: [^\r]*\r\n/, '\r\nDate: *\r\n')

export const PROBES: readonly Probe[] = samples.map(({ name, request, response, end }) => ({
  name,
  parts: request === '' ? [] : request.split(' <then> '),
  open: end.startsWith('still open'),
  response: undated(response),
}))

/** The text of a probe's outcome. */
export const outcome = (response: string, end: 'open' | 'fin' | 'reset' | 'closed'): string => `${end}: ${response}`

/**
 * Tries one probe.
 * @returns how it ended, and what came without its date
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
