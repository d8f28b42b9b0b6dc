/**
 * Terminals as an animated SVG that needs nothing else: no script, no font, no request. Every row of a screen is there
 * once for each time that it is shown; CSS decides when. Without animation (`prefers-reduced-motion`, or a program that
 * has none) the last frame is shown.
 */
import type { Screen } from './terminal.ts'

/** What is shown from a time on. */
export interface Frame {
  /** ms. */
  readonly at: number
  /** Title of the terminal. */
  readonly title: string
  readonly screen: Screen
}

export interface Recording {
  readonly columns: number
  readonly rows: number
  /** Of all terminals, in order. */
  readonly titles: readonly string[]
  readonly frames: readonly Frame[]
  /** ms. */
  readonly length: number
  /** What a reader who does not see it is told. */
  readonly description: string
}

const FONT_PX = 14
/** Every font is stretched to this width, so that columns and box characters meet. */
const CELL_PX = 8.4
const LINE_PX = 18
const MARGIN_PX = 16
const HEAD_PX = 36

const STYLE = `text{font:${FONT_PX}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;fill:#d1d7e0;white-space:pre}
.b{font-weight:700}.d{opacity:.65}.c1{fill:#ff7b72}.c2{fill:#56d364}.c3{fill:#e3b341}.c4{fill:#79c0ff}.c5{fill:#d2a8ff}.c6{fill:#76e3ea}.r{fill:#0d1117}.h{fill:#7d8590}.on{fill:#f0f6fc}`

/** Select Graphic Rendition, with its parameters. */
const SGR = new RegExp(`${String.fromCharCode(27)}\\[([\\d;:]*)m`)

interface Style {
  bold: boolean
  dim: boolean
  reverse: boolean
  /** 1 to 6, else the ordinary one. */
  color: number
}

const plain = (): Style => ({ bold: false, dim: false, reverse: false, color: 0 })
const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const rounded = (value: number): string => String(Math.round(value * 100) / 100)

/** Applies the parameters of an SGR sequence; those that no program here uses are ignored. */
function apply(style: Style, parameters: string): void {
  for (const parameter of parameters.split(/[;:]/).map(Number)) {
    if (parameter === 0) Object.assign(style, plain())
    else if (parameter === 1) style.bold = true
    else if (parameter === 2) style.dim = true
    else if (parameter === 7 || parameter === 27) style.reverse = parameter === 7
    else if (parameter === 22) style.bold = style.dim = false
    else if (parameter >= 30 && parameter <= 39) style.color = parameter % 10
    else if (parameter >= 90 && parameter <= 97) style.color = parameter % 10
  }
}

function span(text: string, { bold, dim, reverse, color }: Style): string {
  const names = [bold ? 'b' : '', dim ? 'd' : '', reverse ? 'r' : color >= 1 && color <= 6 ? `c${color}` : ''].filter(
    (name) => name !== '',
  )
  return names.length === 0 ? escaped(text) : `<tspan class="${names.join(' ')}">${escaped(text)}</tspan>`
}

interface Line {
  /** Of a text element. */
  readonly content: string
  readonly cells: number
  /** First cell and number of cells of what is reversed. */
  readonly reversed: readonly (readonly [number, number])[]
}

/** @param style in force at the begin of the line, changed to that at its end */
function lineOf(line: string, style: Style): Line {
  const parts = line.split(SGR)
  let content = ''
  let cells = 0
  const reversed: [number, number][] = []
  for (const [i, part] of parts.entries()) {
    if (i % 2 === 1) apply(style, part)
    else if (part !== '') {
      const count = [...part].length
      if (style.reverse) reversed.push([cells, count])
      content += span(part, style)
      cells += count
    }
  }
  return { content, cells, reversed }
}

/** The rows of a screen as elements, '' for an empty one. */
function rowsOf({ lines, cursor }: Screen, rows: number): string[] {
  const style = plain()
  return Array.from({ length: rows }, (_, row) => {
    const { content, cells, reversed } = lineOf(lines[row] ?? '', style)
    const top = HEAD_PX + MARGIN_PX / 2 + row * LINE_PX
    const width = rounded(cells * CELL_PX)
    const rect = (first: number, count: number, opacity: number): string =>
      `<rect x="${rounded(MARGIN_PX + first * CELL_PX)}" y="${top}" width="${rounded(count * CELL_PX)}" height="${LINE_PX}" fill="#d1d7e0" fill-opacity="${opacity}"/>`
    const backs = reversed.map(([first, count]) => rect(first, count, 0.85)).join('')
    const text =
      cells === 0
        ? ''
        : `${backs}<text x="${MARGIN_PX}" y="${top + 14}" textLength="${width}" lengthAdjust="spacingAndGlyphs">${content}</text>`
    if (cursor?.[1] !== row) return text
    return text + rect(cursor[0], 1, 0.5)
  })
}

/** The titles of all terminals, that of the one shown in a brighter colour. */
function headOf(titles: readonly string[], shown: string): string {
  let left = MARGIN_PX
  return titles
    .map((title) => {
      const text = `<text class="${title === shown ? 'on b' : 'h'}" x="${rounded(left)}" y="23">${escaped(title)}</text>`
      const width = title.length * CELL_PX
      const line = `<path d="M${rounded(left)} ${HEAD_PX - 2}h${rounded(width)}" stroke="#79c0ff" stroke-width="2"/>`
      left += width + 28
      return title === shown ? text + line : text
    })
    .join('')
}

/** Elements by the times from which and until which they are seen, ms. */
function spans({ frames, rows, titles, length }: Recording): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const open: { since: number; element: string }[] = Array.from({ length: rows + 1 }, () => ({ since: 0, element: '' }))
  const close = (i: number, until: number, next: string): void => {
    const now = open[i]
    if (now === undefined || now.element === next) return
    const key = `${now.since} ${until}`
    if (now.element !== '' && until > now.since) found.set(key, [...(found.get(key) ?? []), now.element])
    open[i] = { since: until, element: next }
  }
  for (const { at, title, screen } of frames) {
    for (const [i, element] of [headOf(titles, title), ...rowsOf(screen, rows)].entries())
      close(i, Math.round(at), element)
  }
  for (let i = 0; i <= rows; i++) close(i, Math.round(length), '')
  return found
}

export function svgOf(recording: Recording): string {
  const { columns, rows, length, description } = recording
  const width = Math.ceil(columns * CELL_PX + 2 * MARGIN_PX)
  const height = HEAD_PX + rows * LINE_PX + MARGIN_PX
  const styles: string[] = []
  const groups: string[] = []
  for (const [key, elements] of spans(recording)) {
    const [since = 0, until = 0] = key.split(' ').map(Number)
    const name = `a${groups.length}`
    const isLast = until === Math.round(length)
    const percent = (at: number): string => `${rounded((100 * at) / length)}%`
    const steps = [
      since > 0 ? '0%{visibility:hidden}' : '',
      `${percent(since)}{visibility:visible}`,
      isLast ? '' : `${percent(until)}{visibility:hidden}`,
    ]
    styles.push(`.${name}{animation-name:${name}}@keyframes ${name}{${steps.join('')}}`)
    groups.push(`<g class="${name}"${isLast ? '' : ' visibility="hidden"'}>${elements.join('')}</g>`)
  }
  return `<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img">
<title>${escaped(description)}</title>
<style>${STYLE}
g{animation:0s step-end infinite}@media (prefers-reduced-motion:no-preference){g{animation-duration:${rounded(length / 1000)}s}}
${styles.join('\n')}</style>
<rect width="${width}" height="${height}" rx="8" fill="#0d1117"/><path d="M0 ${HEAD_PX - 0.5}h${width}" stroke="#30363d"/>
${groups.join('\n')}
</svg>
`
}
