/** `kcptun-wasm init --link`, `--qr` and `import` of links and configurations, in memory. */

import * as fc from 'fast-check'
import jsQR from 'jsqr'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { qrText } from '../../host/cli/qr-code.ts'
import { linkOf, readLink } from '../../host/config/link.ts'
import { type Outcome, tryCommand, type World } from './command-line.ts'

const test = suite('import')

const GIVEN = ['--server', 'vpn.example:4000', '--listen', '1080', '--connect', '80']
const PSK = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='
const CLIENT = { listen: ':1080', kcp_connect: 'vpn.example:4000', method: 'aes256gcm', psk: PSK }

const paste = (input: World['input'], words: readonly string[] = [], world: World = {}): Promise<Outcome> =>
  tryCommand('import', ['-', ...words], { ...world, ...(input === undefined ? {} : { input }) })

const linkIn = ({ stdout }: Outcome): string => /^kcptun-wasm:\S+$/m.exec(stdout)?.[0] ?? ''

/** Reads the text with a QR code as a camera does: light is a drawn half of a character. */
function scan(lines: readonly string[]): string | undefined {
  const rows = lines.flatMap((line) => [
    [...line].map((cell) => cell === '█' || cell === '▀'),
    [...line].map((cell) => cell === '█' || cell === '▄'),
  ])
  const scale = 4
  const [width, height] = [(rows[0]?.length ?? 0) * scale, rows.length * scale]
  const pixels = new Uint8ClampedArray(width * height * 4)
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const light = rows[Math.floor(y / scale)]?.[Math.floor(x / scale)] === true
      pixels.set([...Array(3).fill(light ? 255 : 0), 255], (y * width + x) * 4)
    }
  }
  return jsQR(pixels, width, height)?.data
}

const codeIn = (text: string): string[] => text.split('\n').filter((line) => /[█▀▄]/.test(line))

function assertRefused({ status, stderr, files }: Outcome, pattern: RegExp): void {
  assert.is(status, 1)
  assert.match(stderr, pattern)
  assert.is(stderr.trim().split('\n').length, 1, stderr)
  assert.not.ok(stderr.includes(PSK), 'the key is not shown')
  assert.is(files.size, 0, 'nothing is written')
}

test('a link of init makes the same client on another machine', async () => {
  for (const words of [GIVEN, ['--rendezvous', ...GIVEN.slice(1), '--service-id', 'Büro']]) {
    const made = await tryCommand('init', [...words, '--link'])
    assert.is(made.status, 0, made.stderr)
    assert.match(made.stdout, /contains the key/)
    for (const text of [linkIn(made), `\n  ${linkIn(made)}\r\n`, linkIn(made).replace(/.{60}/g, '$&\n')]) {
      const { status, stdout, stderr, files } = await paste(text)
      assert.is(status, 0, stderr)
      assert.equal([...files.keys()], ['client.json'])
      assert.equal(JSON.parse(files.get('client.json') ?? ''), JSON.parse(made.files.get('client.json') ?? ''))
      assert.match(stdout, / {4}kcptun-wasm -c client\.json\n/)
      assert.not.ok(stdout.includes(JSON.parse(files.get('client.json') ?? '').psk), 'the key is not shown')
    }
  }
})

test('without --link and --qr init shows no link', async () => {
  const { stdout } = await tryCommand('init', GIVEN)
  assert.not.match(stdout, /kcptun-wasm:\/\/|[█▀▄]/)
})

test('a reader of QR codes sees the link of --qr', async () => {
  const plain = await tryCommand('init', [...GIVEN, '--link', '--qr'])
  assert.is(scan(codeIn(plain.stdout)), linkIn(plain))
  const coloured = await tryCommand('init', [...GIVEN, '--qr'], { answers: [], columns: 80 })
  assert.is(linkIn(coloured), '', 'the code alone')
  const lines = codeIn(coloured.stdout)
  const [on, off] = ['\u001b[97;40m', '\u001b[0m']
  for (const line of lines) assert.ok(line.startsWith(on) && line.endsWith(off), line)
  const seen = scan(lines.map((line) => line.slice(on.length, -off.length))) ?? ''
  assert.equal(readLink(seen)['psk'], JSON.parse(coloured.files.get('client.json') ?? '').psk)
  for (const length of [1, 20, 250, 900]) {
    const text = 'x'.repeat(length)
    assert.is(scan(qrText(text, false).lines), text, `${length} characters`)
  }
})

test('a code that the terminal would break is not printed', async () => {
  const narrow = await tryCommand('init', [...GIVEN, '--qr'], { answers: [], columns: 40 })
  assert.is(narrow.status, 0)
  assert.equal(codeIn(narrow.stdout), [])
  assert.match(narrow.stdout, /needs \d+ columns, the terminal has 40: use --link/)
})

test('every configuration survives as a link', () => {
  const text = fc.string({ unit: 'binary' })
  fc.assert(
    fc.property(fc.dictionary(text, fc.oneof(text, fc.integer(), fc.boolean())), (config) => {
      const { $schema: _, ...rest } = config
      const link = linkOf(config)
      assert.match(link, /^kcptun-wasm:\/\/v1\/[\w-]+$/)
      assert.equal(JSON.stringify(readLink(link)), JSON.stringify(rest))
    }),
    { numRuns: 300 },
  )
})

test('a configuration is taken as it stands, under the name of its mode', async () => {
  const text = `{ "listen": ":1080", "kcp_connect": "a:1", "method": "aes256gcm",\n "psk": "${PSK}", "mtu": 1400 }`
  const client = await paste(text)
  assert.is(client.files.get('client.json'), `${text}\n`)
  assert.match(client.stdout, /unknown key "mtu" is ignored: a key of the Go kcptun/)
  const open = await paste('{ "connect": "b:1", "kcp_bind": ":1" }')
  assert.equal([...open.files.keys()], ['server.json'])
  assert.not.match(open.stdout, /contains the key/)
  assert.equal([...(await paste('{ "kcp_bind": ":1" }')).files.keys()], ['rendezvous.json'])
  const files = new Map([['c.json', text]])
  await tryCommand('import', ['c.json', '-o', 'x/mine.json'], { files })
  assert.is(files.get('x/mine.json'), `${text}\n`)
  assert.equal([...(await paste(text, ['--dir', 'x/'])).files.keys()], ['x/client.json'])
})

test('nothing is overwritten without --force', async () => {
  for (const words of [[], ['-o', 'mine.json']]) {
    const path = words[1] ?? 'client.json'
    const files = new Map([[path, 'mine']])
    const refused = await paste(linkOf(CLIENT), words, { files })
    assert.is(refused.status, 1)
    assert.match(refused.stderr, new RegExp(`${path}: already exists: replace it with --force, or .* -o`))
    assert.equal([...files], [[path, 'mine']])
    assert.is((await paste(linkOf(CLIENT), [...words, '--force'], { files })).status, 0)
    assert.equal(JSON.parse(files.get(path) ?? '').psk, PSK)
  }
  assertRefused(await paste(linkOf(CLIENT), [], { broken: { 'client.json': 'ENOSPC' } }), /client\.json: ENOSPC/)
})

test('what is no valid link or configuration is refused without showing it', async () => {
  const link = linkOf(CLIENT)
  const cases: readonly (readonly [World['input'], RegExp])[] = [
    ['', /standard input: empty/],
    [link.slice(0, -9), /standard input: the link is damaged or incomplete/],
    [link.replace('v1/', ''), /damaged or incomplete/],
    [`${link}/`, /damaged or incomplete/],
    [`${link} and more`.replaceAll(' ', '!'), /damaged or incomplete/],
    ['kcptun-wasm://v1/WzFd', /damaged or incomplete/],
    [`kcptun-wasm://v1/${Buffer.from('{"listen":"\xff"}', 'latin1').toString('base64url')}`, /damaged or incomplete/],
    [[link, '\n', '!'], /damaged or incomplete/],
    [link.replace('v1', 'v2'), /the link has format v2, this kcptun-wasm reads v1/],
    [linkOf({ ...CLIENT, psk: 'short' }), /config key psk = \(hidden\): must be 32 bytes/],
    [linkOf({ ...CLIENT, kcp_connect: 'vpn' }), /config key kcp_connect = "vpn": .*colon/],
    [linkOf({ listen: ':1' }), /kcp_connect: missing/],
    ['{ "listen": 1', /standard input: line 1/],
    ['good morning', /no command line with flags of the Go kcptun/],
    [Uint8Array.of(0xff), /standard input: invalid UTF-8/],
  ]
  for (const [input, pattern] of cases) assertRefused(await paste(input), pattern)
})

test('arguments that make no sense are refused', async () => {
  const run = (...words: string[]): Promise<Outcome> => tryCommand('import', words, { input: linkOf(CLIENT) })
  assertRefused(await run(), /nothing to import: give a file, or "-"/)
  assertRefused(await run(JSON.stringify(CLIENT)), /a configuration contains the key: .* standard input/)
  assertRefused(await run('-', '-'), /the same source twice/)
  assertRefused(await run('-', 'a', 'b'), /unexpected argument: "b"/)
  assertRefused(await run('nowhere.json'), /nowhere\.json: ENOENT/)
  assertRefused(await run('-', '--tuning'), /--tuning is for settings of a Go kcptun/)
  assertRefused(await run('-', '--listen', '80'), /--listen is for settings of a Go kcptun/)
  assertRefused(await run('-', '-o', 'a', '--dir', 'b'), /--output and --dir are mutually exclusive/)
})

test('a link that is pasted into a terminal needs no end of input, anything else does', async () => {
  const link = linkOf(CLIENT)
  const parts = [link.slice(0, 70), '\n', link.slice(70), '\n', 'the rest']
  const typed = await paste(parts, [], { answers: [] })
  assert.is(typed.status, 0, typed.stderr)
  assert.match(typed.stderr, /Paste the link/)
  assert.is(typed.unread, 1)
  const text = JSON.stringify(CLIENT)
  assert.is((await paste([text.slice(0, 9), text.slice(9), '\n'], [], { answers: [] })).unread, 0)
})

test.run()
