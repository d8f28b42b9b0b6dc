/** `kcptun-wasm rotate` in memory: the steps that it prints, and for which files. test/e2e/rotate carries them out. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type Outcome, tryCommand } from './command-line.ts'

const psk = (first: string) => `${first.padEnd(43, 'A')}=`
const SERVER = { connect: 'a:1', kcp_bind: ':4000', method: 'aes256gcm' }
const ALICE = { name: 'alice', psk: psk('a'), max_sessions: 9 }
const BOB = { name: 'bob', password: 'x' }

const rotate = (file: object, ...words: string[]): Promise<Outcome> =>
  tryCommand('rotate', ['-c', 's.json', ...words], { files: new Map([['s.json', JSON.stringify(file)]]) })

/** The JSON in each indented block of the steps. */
function blocksOf({ stdout }: Outcome): unknown[] {
  const blocks = stdout.split(/\n(?! {7}|\n)/).map(
    (part) =>
      part
        .match(/^ {7}.*$/gm)
        ?.join('\n')
        .trim() ?? '',
  )
  return blocks.flatMap((text) => {
    if (text.startsWith('{')) return [JSON.parse(text)]
    return text.startsWith('"keys"') ? [JSON.parse(`{${text}}`)] : []
  })
}

async function assertRefused(outcome: Promise<Outcome>, reason: RegExp): Promise<void> {
  const { status, stdout, stderr } = await outcome
  assert.equal([status, stdout], [1, ''])
  assert.match(stderr, reason)
}

const test = suite('rotate')

test('a file with psk gets keys, the old one first, and a client the new one first', async () => {
  const outcome = await rotate({ ...SERVER, psk: psk('z') })
  assert.is(outcome.status, 0, outcome.stderr)
  type Keys = { keys: { name: string; psk: string }[] }
  const [server, client] = blocksOf(outcome) as [Keys, Keys]
  const [old, fresh] = server.keys
  assert.equal(old, { name: 'default', psk: psk('z') })
  assert.match(fresh?.name ?? '', /^default-\d{4}-\d{2}$/)
  assert.match(fresh?.psk ?? '', /^[A-Za-z0-9+/]{43}=$/)
  assert.equal(client.keys, [fresh, old])
  const again = blocksOf(await rotate({ ...SERVER, psk: psk('z') })) as [Keys]
  assert.is.not(again[0].keys[1]?.psk, fresh?.psk, 'each call makes another key')
})

test('a file with keys gets an entry with the limit of the old one, and nobody else is shown', async () => {
  const outcome = await rotate({ ...SERVER, keys: [ALICE, BOB] }, 'alice')
  const [entry, client] = blocksOf(outcome) as [typeof ALICE, { keys: (typeof ALICE)[] }]
  assert.match(entry.name, /^alice-\d{4}-\d{2}$/)
  assert.is(entry.max_sessions, 9)
  assert.equal(client.keys, [
    { name: entry.name, psk: entry.psk },
    { name: 'alice', psk: ALICE.psk },
  ])
  assert.not.match(outcome.stdout, 'bob')
  assert.match(outcome.stdout, 'remove the entry alice from keys')
  const password = blocksOf(await rotate({ ...SERVER, keys: [ALICE, BOB] }, 'bob')) as [unknown, { keys: object[] }]
  assert.equal(password[1].keys[1], BOB)
})

test('the name of the new key is free, short enough, and has one date', async () => {
  const nameFor = async (...names: string[]): Promise<string> => {
    const keys = names.map((name, index) => ({ name, psk: psk(String(index)) }))
    return (blocksOf(await rotate({ ...SERVER, keys }, names[0] ?? ''))[0] as { name: string }).name
  }
  assert.match(await nameFor('alice-2020-01'), /^alice-20\d\d-\d\d$/)
  const first = await nameFor('alice')
  const second = await nameFor('alice', first)
  assert.match(second, /^alice-\d{4}-\d{2}-\d{2}$/)
  assert.match(await nameFor(first), /^alice-\d{4}-\d{2}-\d{2}$/, 'twice a month')
  assert.match(await nameFor('alice', first, second), /^alice-\d{4}-\d{2}-\d{2}\.2$/)
  assert.is((await nameFor('a'.repeat(64))).length, 64)
})

test('the place of the keys is named where there are several tunnels', async () => {
  const entry = (port: number, more: object) => ({ connect: 'a:1', kcp_bind: `:${port}`, name: `t${port}`, ...more })
  const file = { method: 'aes256gcm', keys: [ALICE, BOB], tunnels: [entry(1, { psk: psk('q') }), entry(2, {})] }
  assert.match((await rotate(file, '--tunnel', 't1')).stdout, /replace tunnels\[0\]\.psk by/)
  assert.match((await rotate(file, '--tunnel', 't2', 'bob')).stdout, /add this entry to keys, after that of bob/)
  await assertRefused(rotate(file), /choose one with --tunnel: t1, t2/)
})

test('what has no key to replace is refused with a reason', async () => {
  await assertRefused(rotate({ ...SERVER, keys: [ALICE, BOB] }), /name the key to replace: alice, bob/)
  await assertRefused(rotate({ ...SERVER, keys: [ALICE, BOB] }, 'carol'), /there is no key "carol": alice, bob/)
  await assertRefused(rotate({ ...SERVER, psk: psk('z') }, 'carol'), /one key, without a name/)
  await assertRefused(rotate({ ...SERVER, method: undefined }), /sets no method/)
  await assertRefused(rotate({ listen: ':1', kcp_connect: 'a:1', method: 'aes256gcm', psk: psk('z') }), /is a client/)
  const full = Array.from({ length: 64 }, (_, i) => ({ name: `n${i}`, psk: psk(String(i)) }))
  await assertRefused(rotate({ ...SERVER, keys: full }, 'n1'), /64 keys, the most/)
  await assertRefused(rotate({ ...SERVER, psk: psk('z') }, '--status'), /http_listen is missing/)
  await assertRefused(rotate({ ...SERVER, keys: [ALICE] }, 'alice', 'bob'), /unexpected argument: "bob"/)
})

test.run()
