/** The recorded terminals: what is seen when, what is seen without animation, and that nothing is loaded. */
import { readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import type { Screen } from '../../testkit/terminal.ts'
import { svgOf } from '../../testkit/terminal-svg.ts'

const test = suite('terminals as SVG')
const ESCAPE = String.fromCharCode(27)

const screen = (...lines: string[]): Screen => ({ lines })
const frames = [
  { at: 0, title: 'here', screen: screen('$ one', 'both') },
  { at: 1000, title: 'here', screen: screen(`${ESCAPE}[1;32m<two>${ESCAPE}[0m`, 'both') },
  { at: 3000, title: 'there', screen: { lines: [`${ESCAPE}[7mthree${ESCAPE}[0m`], cursor: [5, 0] as const } },
]
const RECORDING = { columns: 20, rows: 2, titles: ['here', 'there'], frames, length: 4000, description: 'a & b' }

/** The text of all groups that a pattern in their opening tag selects. */
function texts(svg: string, tag: RegExp): string {
  const groups = [...svg.matchAll(/(<g [^>]*>)(.*?)<\/g>/g)].filter(([, open = '']) => tag.test(open))
  return groups.map(([, , content = '']) => content.replace(/<[^>]*>/g, ' ')).join(' ')
}

test('every row is there once for each time that it is shown', () => {
  const svg = svgOf(RECORDING)
  const [, name = ''] = /<g class="(\w+)"[^>]*><text[^>]*><tspan class="b c2">&lt;two>/.exec(svg) ?? []
  assert.match(svg, `@keyframes ${name}{0%{visibility:hidden}25%{visibility:visible}75%{visibility:hidden}}`)
  assert.is(svg.split('>both<').length, 2, 'shown from 0 to 3 s, as one element')
  assert.match(svg, /animation-duration:4s/)
  assert.match(svg, '<title>a &amp; b</title>')
})

test('without animation the last frame is seen, and nothing else', () => {
  const svg = svgOf(RECORDING)
  const seen = texts(svg, /^(?!.*hidden)/)
  assert.match(seen, 'three')
  assert.not.match(seen, /one|two|both/)
  assert.match(texts(svg, /hidden/), /one.*both|both.*one/)
})

test('docs/session.svg has neither scripts nor anything that is loaded, and no key', () => {
  const svg = readFileSync('docs/session.svg', 'utf8')
  assert.not.match(svg, /<script|<foreignObject|href|url\(|@import|\son\w+=/)
  assert.equal(svg.match(/https?:\/\/(?!127\.0\.0\.1:)\S+/g), ['http://www.w3.org/2000/svg"'])
  assert.not.match(svg, /[A-Za-z0-9+/]{43}=|kcptun-wasm:\/\//)
  assert.match(svg, 'connected: 203.0.113.9:4000 answers in')
})

test.run()
