/**
 * The tables of the transport simulator. `bench sim` prints them; a snapshot keeps the quick ones.
 *
 * Targets: goodput >= 0.9 x min(rate (1 - loss), W mss / (k RTT)), tail drops <= 2 %, payload / sent >= 0.95 (1 - loss)
 * where the link is the limit, mean queue <= max(0.5 RTT, 4 packets per flow), ramp <= 12 RTT + 1 s, Jain >= 0.9,
 * beside CUBIC >= 15 % each.
 */
import type { Options } from './links.ts'
import type { Table } from './table.ts'
import { changesTable, roughTable } from './table-changes.ts'
import { echoTable } from './table-echo.ts'
import { gridTable } from './table-grid.ts'
import { lateTable } from './table-late.ts'
import { linksTable } from './table-links.ts'
import { cubicTable, severalTable } from './table-shared.ts'

/** All tables, in order. Nothing runs before a row's `run` is called. */
export function tables(options: Options): Table[] {
  return [
    linksTable(options),
    gridTable(options),
    severalTable(options),
    lateTable(options),
    cubicTable(options),
    changesTable(options),
    echoTable(options),
    roughTable(options),
  ]
}
