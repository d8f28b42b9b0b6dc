/** The documentation site: its links, what its inspection reports, and that it has every page. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { deadLinks, externalResources } from '../../build/site/inspect.mjs'
import { pageText, slug } from '../../build/site/links.mjs'
import { manualPage } from '../../build/site/manual.mjs'
import { pages } from '../../build/site/pages.mjs'

const test = suite('documentation site')
const POLICY = `<meta http-equiv="Content-Security-Policy" content="default-src 'none';">`

function text(source: string, markdown: string, repository?: string): string {
  const files = new Set(['docs/a.md', 'docs/b.md', 'SECURITY.md', 'docs/p.png', 'contrib'])
  const place = {
    pages: new Map([
      ['docs/a.md', 'a'],
      ['SECURITY.md', 'threats'],
    ]),
    titles: new Map([['docs/a.md', 'The page']]),
    exists: (path: string) => files.has(path),
    repository,
    image: () => {},
  }
  return pageText(source, markdown, place)
}

test('every document has a page, every page a document, and names are distinct', () => {
  const sources = new Set(pages.map(({ source }) => source))
  for (const name of readdirSync('docs')) if (name.endsWith('.md')) assert.ok(sources.has(`docs/${name}`), name)
  const { man } = JSON.parse(readFileSync('package.json', 'utf8'))
  for (const manual of man) assert.ok(sources.has(manual), manual)
  for (const source of sources) assert.ok(existsSync(source), source)
  assert.is(new Set(pages.map(({ name }) => name)).size, pages.length)
})

test('links between sources become links between pages', () => {
  assert.is(
    text('docs/b.md', '[x](../SECURITY.md#what-is-not) [`y`](a.md)'),
    '[x](./threats.md#what-is-not) [`y`](./a.md)',
  )
  assert.is(text('docs/b.md', '[a.md](a.md) [docs/a.md](a.md#x)'), '[The page](./a.md) [The page](./a.md#x)')
  assert.is(text('SECURITY.md', '![p](docs/p.png)'), '![p](./p.png)')
  assert.is(text('docs/a.md', '[c](../contrib/)'), 'c')
  assert.is(text('docs/a.md', '[c](../contrib)', 'https://host/f'), '[c](https://host/f/contrib)')
})

test('code and links to other places stay', () => {
  for (const same of [
    '`[x](nowhere.md)`',
    '```\n[x](nowhere.md)\n```',
    '[x](#here)',
    '[x](https://example.org/a.md)',
  ]) {
    assert.is(text('docs/a.md', same), same)
  }
})

test('a link to a file that does not exist is an error', () => {
  assert.throws(() => text('docs/a.md', '[x](nowhere.md)'), 'docs/a.md: dead link: nowhere.md')
})

test('a manual becomes a page with headings, links to the other one, and lines that Markdown and Vue leave alone', () => {
  const html = `<table class="head"><tr><td>K(8)</td></tr></table>
<div class="manual-text"><section class="Sh">
<h1 class="Sh" id="EXIT_STATUS"><a class="permalink" href="#EXIT_STATUS">EXIT
  STATUS</a></h1>
<p class="Pp"><b id="c">-c</b>
    <i>file</i>: see <b>kcptun-wasm.json</b>(5), not <b>kcptun-wasm</b>(8)</p>
<pre>
one

two
</pre>
<section class="Ss"><h2 class="Ss" id="top"><a class="permalink" href="#top">top</a></h2></section></section></div>`
  const page = manualPage('kcptun-wasm.8', html)
  assert.match(page, /^# kcptun-wasm\(8\)\n\n::: v-pre\n/)
  assert.match(page, /^## EXIT STATUS \{#exit-status\}$/m)
  assert.match(page, /^### top \{#top\}$/m)
  assert.match(
    page,
    '<b>-c</b> <i>file</i>: see <a href="./kcptun-wasm.json.5.html">kcptun-wasm.json(5)</a>, not <b>kcptun-wasm</b>(8)',
  )
  assert.match(page, 'one\n&#10;two')
  assert.not.match(page, /<table|<section|<div|<h\d/)
})

test('links of README.md lead to files and headings that exist', () => {
  const links = [...readFileSync('README.md', 'utf8').matchAll(/\]\(([^()\s:]+)\)/g)].map(([, target = '']) => target)
  assert.ok(links.length > 10)
  for (const target of links) {
    const [path = '', fragment] = target.split('#')
    const file = path === '' ? 'README.md' : path
    assert.ok(existsSync(file), target)
    if (fragment === undefined) continue
    const headings = [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => slug(heading))
    assert.ok(headings.includes(fragment), target)
  }
})

test('ids of headings are those of Git hosts', () => {
  assert.is(slug('4.1 Size: `kcp.mtu` and others'), '41-size-kcpmtu-and-others')
  assert.is(slug('/stats.json'), 'statsjson')
})

test('dead links and fragments are reported, living ones are not', () => {
  const files = new Map([
    ['index.html', '<a class="x" href="/d/a.html#two">1</a><a href="/d/">2</a><a href="mailto:a@b.example">3</a>'],
    [
      'a.html',
      '<h2 id="two"></h2><a href="#two">1</a><a href="https://example.org/">2</a><a href="./index.html">3</a>',
    ],
  ])
  assert.equal(deadLinks(files, '/d/'), [])
  files.set('b.html', '<a href="/d/c.html">1</a><a href="/d/a.html#three">2</a><a href="#four">3</a>')
  assert.equal(deadLinks(files, '/d/'), [
    'b.html: /d/c.html: no such file',
    'b.html: /d/a.html#three: no such heading',
    'b.html: #four: no such heading',
  ])
})

test('whatever a page would load from another host is reported, links are not', () => {
  assert.equal(externalResources('a.html', `${POLICY}<a href="https://x.example/">x</a><img src="/p.png">`), [])
  assert.equal(externalResources('a.css', 'a { background: url(data:image/png;base64,AA) }'), [])
  assert.equal(externalResources('a.js', 'a("http://www.w3.org/2000/svg"); import("./b.js")'), [])
  const bad: [string, string][] = [
    ['a.html', '<img alt="" src="https://x.example/p.png">'],
    ['a.html', '<script async src="//x.example/a.js"></script>'],
    ['a.html', '<link rel="preconnect" href="https://x.example">'],
    ['a.html', '<style>@import "https://x.example/a.css"</style>'],
    ['a.css', '@font-face { src: url("https://x.example/a.woff2") }'],
    ['a.js', 'const a = await import("https://x.example/a.js")'],
    ['a.js', 'import{a}from"https://x.example/a.js"'],
    ['a.js', 'fetch(`https://x.example/a`)'],
  ]
  for (const [name, content] of bad) {
    assert.is(externalResources(name, name === 'a.html' ? POLICY + content : content).length, 1, content)
  }
  assert.is(externalResources('a.html', '<p>without a policy</p>').length, 1)
})

test.run()
