/** Keys by name in the library: a server that tells its clients apart. */
import { ConfigError, createClient, createServer, generatePsk } from 'kcptun-wasm'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { errorOf, soon, textOf } from './pair.ts'

const test = suite('library/keys')

const ALICE = { name: 'alice', psk: generatePsk() }
const BOB = { name: 'bob', psk: generatePsk(), max_sessions: 5, not_after: '2999-12-31' }

test('a server accepts each of its keys and counts by name', async () => {
  const server = await createServer({ bind: '127.0.0.1:0', keys: [ALICE, BOB] }, async (stream) => {
    stream.end(`${await textOf(stream)}!`)
  })
  const address = server.address ?? ''
  const clients = [
    await createClient({ server: address, psk: BOB.psk }),
    await createClient({ server: address, keys: [ALICE, BOB] }),
  ]
  try {
    for (const client of clients) {
      const stream = await client.connect(soon())
      stream.end('hello')
      assert.is(await textOf(stream), 'hello!')
    }
    const { keys = [] } = server.stats()
    assert.equal(
      keys.map(({ name, sessions_opened, tcp_written_bytes }) => [name, sessions_opened, tcp_written_bytes]),
      [
        ['alice', 1, 5],
        ['bob', 1, 5],
      ],
    )
    assert.equal([keys[1]?.max_sessions, keys[1]?.not_after], [5, '2999-12-31'])
    const stranger = await createClient({ server: address, psk: generatePsk() })
    await errorOf(stranger.connect({ signal: AbortSignal.timeout(4000) }))
    await stranger.close()
  } finally {
    await Promise.all([...clients, server].map((each) => each.close()))
  }
})

test('errors name the entry and its member', async () => {
  for (const [keys, key] of [
    [[{ psk: ALICE.psk }], 'keys[0].name'],
    [[ALICE, { ...ALICE, name: 'bob' }], 'keys[1].psk'],
    [[ALICE, { ...BOB, max_session: 5 }], 'keys[1].max_session'],
    [[{ ...ALICE, not_after: '31.12.2027' }], 'keys[0].not_after'],
    [5, 'keys'],
    [[], 'method'],
  ] as const) {
    const error = await errorOf(createServer({ bind: '127.0.0.1:0', keys: keys as never }, () => {}))
    assert.instance(error, ConfigError)
    assert.is((error as ConfigError).key, key)
    assert.not.match(error.message, ALICE.psk)
  }
  const both = await errorOf(createServer({ bind: '127.0.0.1:0', keys: [ALICE], psk: BOB.psk }, () => {}))
  assert.match(both.message, /keys .*conflicts with psk/)
})

test.run()
