/**
 * `bench sim`: the transport over simulated links in virtual time (testkit/sim/flows), as tables; missed targets are
 * marked `*`.
 *
 *   --quick        only the short tables of the snapshot         --seed N       another seed
 *   --only NAMES   tables by name, separated by commas           --match REGEX  rows whose label matches
 *   --set K=V,...  engine config (docs/abi.md names)             --timer MS     engines wake up on multiples of MS
 *   --json FILE    figures and targets as JSON                   --update       rewrites bench/snapshots/sim.txt
 *   --trace LABEL  time series of one link, e.g. '100/50 2% q1', instead of tables; with --seconds N (8),
 *                  --every MS (200)
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { ConfigField, type ConfigFieldName, TICKS_PER_MS } from '../host/engine/core.ts'
import type { Tuning } from '../testkit/sim/flows/engine.ts'
import { DEFAULT_SEED, quickText, SNAPSHOT } from '../testkit/sim/flows/snapshot.ts'
import { heading, line, type Row, summary } from '../testkit/sim/flows/table.ts'
import { tables } from '../testkit/sim/flows/tables.ts'
import { trace } from '../testkit/sim/flows/trace.ts'

/** Parses `sndwnd=4096,nc=1` as config fields. */
function tuningOf(text: string | undefined): Tuning {
  const tuning: Partial<Record<ConfigFieldName, number>> = {}
  const names = Object.keys(ConfigField) as ConfigFieldName[]
  for (const part of text?.split(',') ?? []) {
    const [key, value] = part.split('=')
    const name = names.find((field) => field === key)
    if (name === undefined || !Number.isInteger(Number(value))) throw new Error(`--set ${part}: expected FIELD=INTEGER`)
    tuning[name] = Number(value)
  }
  return tuning
}

/** Runs the parts requested by the arguments. */
export function benchSim(args: readonly string[]): void {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      match: { type: 'string' },
      seed: { type: 'string', default: String(DEFAULT_SEED) },
      set: { type: 'string' },
      timer: { type: 'string', default: '0.125' },
      trace: { type: 'string' },
      seconds: { type: 'string', default: '8' },
      every: { type: 'string', default: '200' },
      json: { type: 'string' },
      update: { type: 'boolean', default: false },
    },
  })
  if (values.update) {
    writeFileSync(SNAPSHOT, quickText())
    console.error(`wrote ${SNAPSHOT}`)
    return
  }
  const seed = Number(values.seed)
  if (!Number.isInteger(seed)) throw new Error(`--seed ${values.seed}: expected an integer`)
  const timerTicks = Number(values.timer) * TICKS_PER_MS
  if (!Number.isInteger(timerTicks) || timerTicks < 1)
    throw new Error(`--timer ${values.timer}: expected a multiple of 0.125`)
  const common = { seed, quick: values.quick, tuning: tuningOf(values.set), timerTicks }
  if (values.trace !== undefined) {
    const [seconds, every] = [Number(values.seconds), Number(values.every)]
    if (!(seconds > 0 && every > 0)) throw new Error('--seconds, --every: expected numbers above 0')
    trace({ ...common, label: values.trace, seconds, every }, (text) => console.log(text))
    return
  }
  let packets = 0
  const all = tables({
    ...common,
    observe: (result) => {
      packets += result.packets
    },
  })
  const names = values.only?.split(',')
  const unknown = names?.find((name) => !all.some((table) => table.name === name))
  if (unknown !== undefined) throw new Error(`--only ${unknown}: expected ${all.map(({ name }) => name).join(', ')}`)
  const pattern = new RegExp(values.match ?? '')
  const json: object[] = []
  const began = performance.now()
  console.log(`seed ${seed}; * = target missed`)
  for (const table of all) {
    if (names && !names.includes(table.name)) continue
    console.log(`\n${heading(table).join('\n')}`)
    const rows: Row[] = []
    for (const { label, run } of table.rows) {
      if (!pattern.test(label)) continue
      const row = { label, figures: run() }
      rows.push(row)
      console.log(line(table, row))
      for (const [i, figure] of row.figures.entries()) {
        json.push({ table: table.name, row: label, column: table.columns[i], ...figure })
      }
    }
    console.log(summary(table, rows))
  }
  const seconds = (performance.now() - began) / 1000
  console.error(`\n${packets} datagrams in ${seconds.toFixed(1)} s, ${(packets / seconds / 1000).toFixed(0)} k/s`)
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(json, undefined, 1)}\n`)
}
