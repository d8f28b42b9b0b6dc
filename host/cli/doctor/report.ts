/** The report of `doctor`: findings in order and a verdict, as text and as JSON (docs/operation.md). */
import type { Config } from '../../config/config.ts'
import { modeName } from '../../config/rules.ts'
import { PROGRAM, VERSION } from '../../version.ts'

/** Version of the JSON report, incremented when a name is removed or changes its meaning. */
const REPORT_VERSION = 1

/** `note`: informational; `warning`: works, but degraded; `failure`: does not work. */
export type Status = 'ok' | 'note' | 'warning' | 'failure'

/** Names of findings, in the order of the report. */
export type FindingName =
  | 'config'
  | 'names'
  | 'listen'
  | 'bind'
  | 'target'
  | 'rendezvous'
  | 'peer'
  | 'path'
  | 'size_out'
  | 'size_back'
  | 'server'
  | 'buffers'
  | 'files'
  | 'clock'
  | 'capabilities'

export interface Finding {
  readonly name: FindingName
  readonly status: Status
  /** One or two sentences. */
  readonly text: string
  /** Suggested remedies, the most likely first. */
  readonly remedies: readonly string[]
  /** Measured values; names end in their unit. */
  readonly values: Readonly<Record<string, number | string | boolean | null>>
}

export type Verdict = 'healthy' | 'degraded' | 'broken'

/** Exit status of the program. */
export const EXIT_STATUS: Readonly<Record<Verdict, number>> = { healthy: 0, broken: 1, degraded: 2 }

/** Column at which texts start. */
const TEXT_COLUMN = 22
/** Column at which lines of the text report are wrapped. */
const TEXT_WIDTH = 100

export class Report {
  readonly findings: Finding[] = []

  add(
    name: FindingName,
    status: Status,
    text: string,
    more: { readonly remedies?: readonly string[]; readonly values?: Finding['values'] } = {},
  ): void {
    this.findings.push({ name, status, text, remedies: more.remedies ?? [], values: more.values ?? {} })
  }

  get verdict(): Verdict {
    if (this.findings.some(({ status }) => status === 'failure')) return 'broken'
    return this.findings.some(({ status }) => status === 'warning') ? 'degraded' : 'healthy'
  }

  /** The verdict in one sentence: the text of the first finding with the worst status. */
  get summary(): string {
    const { verdict } = this
    if (verdict === 'healthy') return 'no problems found'
    const status = verdict === 'broken' ? 'failure' : 'warning'
    return this.findings.find((finding) => finding.status === status)?.text ?? ''
  }
}

/** The report as text. */
export function reportText(report: Report, path: string, config: Config): string {
  const tunnel = config.name === undefined ? '' : `, tunnel ${config.name}`
  const lines = [`${PROGRAM} doctor: ${path}${tunnel} (${modeName(config.mode)})`, '']
  for (const { name, status, text, remedies } of report.findings) {
    const head = `${status.padEnd(9)}${name.replace('_', ' ')}`.padEnd(TEXT_COLUMN)
    lines.push(...wrap(head, text, TEXT_COLUMN))
    if (status === 'ok') continue
    for (const remedy of remedies) lines.push(...wrap(`${' '.repeat(TEXT_COLUMN)}-> `, remedy, TEXT_COLUMN + 3))
  }
  lines.push('', ...wrap(`${report.verdict}: `, report.summary, report.verdict.length + 2))
  return `${lines.join('\n')}\n`
}

/** Wraps text at TEXT_WIDTH between words; continuation lines are indented. */
function wrap(head: string, text: string, indent: number): string[] {
  const lines: string[] = []
  let line = head
  let empty = true
  for (const word of text.split(' ')) {
    if (!empty && line.length + 1 + word.length > TEXT_WIDTH) {
      lines.push(line)
      line = ' '.repeat(indent)
      empty = true
    }
    line += empty ? word : ` ${word}`
    empty = false
  }
  lines.push(line)
  return lines
}

/** The report as JSON. Never contains a key. */
export function reportJson(report: Report, path: string, config: Config): string {
  const document = {
    version: REPORT_VERSION,
    program: { name: PROGRAM, version: VERSION },
    time: new Date().toISOString(),
    file: path,
    // absent unless the file has several
    tunnel: config.name,
    mode: modeName(config.mode),
    verdict: report.verdict,
    summary: report.summary,
    findings: report.findings,
  }
  return `${JSON.stringify(document, null, 2)}\n`
}
