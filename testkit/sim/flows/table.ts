/** Text tables, rendered row by row; figures that miss their target are marked `*`. */

/** A value of a table. */
export interface Figure {
  readonly value: number
  readonly text: string
  /** the target as text */
  readonly target?: string
  readonly missed?: boolean
}

export interface Row {
  readonly label: string
  readonly figures: readonly Figure[]
}

export interface Table {
  /** name for `--only` */
  readonly name: string
  readonly title: string
  readonly columns: readonly string[]
  /** width of the first column */
  readonly labelWidth: number
  /** Labels and functions that compute the figures, in order. */
  readonly rows: readonly { readonly label: string; readonly run: () => readonly Figure[] }[]
}

export function figure(value: number, digits: number): Figure {
  return { value, text: Number.isFinite(value) ? value.toFixed(digits) : value > 0 ? 'never' : '-' }
}

/** A figure that must be `limit` or more. */
export function atLeast(value: number, digits: number, limit: number): Figure {
  return { ...figure(value, digits), target: `>= ${limit.toFixed(digits)}`, missed: !(value >= limit) }
}

/** A figure that must be `limit` or less. */
export function atMost(value: number, digits: number, limit: number): Figure {
  return { ...figure(value, digits), target: `<= ${limit.toFixed(digits)}`, missed: !(value <= limit) }
}

const COLUMN_GAP = 1

function cell(text: string, missed: boolean, width: number): string {
  return `${text}${missed ? '*' : ' '}`.padStart(width + 1 + COLUMN_GAP)
}

const width = (column: string): number => Math.max(column.length, 6)

/** The lines above the rows. */
export function heading(table: Table): string[] {
  const names = table.columns.map((column) => cell(column, false, width(column)))
  return [`## ${table.name}: ${table.title}`, '', `${''.padEnd(table.labelWidth)}${names.join('')}`.trimEnd()]
}

/** One row as a line. */
export function line(table: Table, { label, figures }: Row): string {
  const cells = table.columns.map((column, i) => {
    const entry = figures[i]
    return cell(entry?.text ?? '', entry?.missed ?? false, width(column))
  })
  return `${label.padEnd(table.labelWidth)}${cells.join('')}`.trimEnd()
}

/** Number of figures that missed their target, by column. */
export function summary(table: Table, rows: readonly Row[]): string {
  const counts = table.columns.map((column, i) => {
    const aimed = rows.map(({ figures }) => figures[i]).filter((entry) => entry?.target !== undefined)
    return { column, aimed: aimed.length, missed: aimed.filter((entry) => entry?.missed).length }
  })
  const parts = counts
    .filter(({ aimed }) => aimed > 0)
    .map(({ column, aimed, missed }) => `${column} ${missed}/${aimed}`)
  return parts.length === 0 ? 'no targets' : `targets missed: ${parts.join(', ')}`
}
