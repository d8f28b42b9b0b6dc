// time limit: 240 s
/** Several keys at a server: users with a key each, kcptun-libev among them, and what a reload changes for whom. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  ALICE,
  assertEcho,
  BOB,
  CAROL,
  connect,
  figuresOf,
  keyOf,
  MIB,
  reload,
  Setting,
  TIMEOUT_MS,
} from '../../testkit/key-setting.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import { libevPath, type Program, type Running } from '../../testkit/process.ts'
import { patternDigest } from '../../testkit/tcp.ts'
import { waitFor, within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const TRANSFER_BYTES = 32 * MIB

const test = suite('keys')

const METHODS = ['xchacha20poly1305_ietf', 'chacha20poly1305_ietf'] as const

for (const { server, client } of MIXED_PAIRS) {
  for (const method of METHODS) {
    test(`users are served each under the own key, and a stranger is not: ${server} server, ${method}`, async () => {
      const setting = await Setting.open(server, method, { keys: [ALICE, BOB, CAROL] })
      try {
        const programs: readonly Program[] = [client, server, libevPath === undefined ? 'node' : 'libev']
        for (const [index, { name, psk }] of [ALICE, BOB, CAROL].entries()) {
          const end = await setting.client(programs[index] ?? client, { psk })
          const app = await connect(end)
          await assertEcho(app, MIB, `${name}, ${end.program}`)
          app.destroy()
        }
        const stranger = await connect(await setting.client(client, { psk: keyOf('x') }))
        await stranger.send('hello')
        const figures = await figuresOf(setting.server)
        for (const name of ['alice', 'bob', 'carol']) {
          assert.is(figures.get(name)?.sessions_opened, 1, name)
          assert.is(figures.get(name)?.tcp_written_bytes, MIB, name)
        }
        await waitFor('refused datagrams', async () => /failed authentication/.test(setting.server.log()), TIMEOUT_MS)
        assert.is(stranger.received, 0)
        assert.match(setting.server.log(), /\[session:[0-9a-f]+ bob\] session opened/i)
      } finally {
        await setting.close()
      }
    })
  }

  test(`a key that a reload removes ends its sessions, and only those: ${server} server`, async () => {
    const setting = await Setting.open(server, METHODS[0], { keys: [ALICE, BOB] })
    try {
      const alice = await connect(await setting.client(client, { keys: [ALICE] }))
      const bob = await connect(await setting.client(server, { psk: BOB.psk }))
      await assertEcho(bob, 1000, 'bob')
      const poured = alice.pour(TRANSFER_BYTES, 7)
      await waitFor('data of alice', () => alice.received > 2 * MIB, TIMEOUT_MS)
      await reload(setting.server, { keys: [CAROL, ALICE] })
      assert.is((await within('the end of bob', TIMEOUT_MS, bob.ending)).kind, 'reset')
      await waitFor('the echo of alice', () => alice.received === TRANSFER_BYTES || alice.ended, TIMEOUT_MS)
      await poured
      alice.finish()
      assert.is((await alice.ending).sha256, patternDigest(TRANSFER_BYTES, 7))
      const carol = await connect(await setting.client(client, { psk: CAROL.psk }))
      await assertEcho(carol, 1000, 'carol')
      assert.equal([...(await figuresOf(setting.server)).keys()], ['carol', 'alice'])
    } finally {
      await setting.close()
    }
  })

  test(`a key is replaced while connections stay, psk to keys and back: ${server} server`, async () => {
    const setting = await Setting.open(server, METHODS[0], { psk: ALICE.psk })
    try {
      const end = await setting.client(client, { psk: ALICE.psk })
      const first = await connect(end)
      await assertEcho(first, 1000, 'before')
      const FRESH = { name: 'alice-2', psk: keyOf('n') }
      const server = { ...setting.server.config, psk: undefined }
      const own = { ...end.config, psk: undefined }
      const write = async (running: Running, config: object): Promise<void> => reload(running, JSON.stringify(config))
      await write(setting.server, { ...server, keys: [ALICE, FRESH] })
      await assertEcho(first, 1000, 'the server knows both')
      await write(end, { ...own, keys: [FRESH, ALICE] })
      const second = await connect(end)
      await assertEcho(second, 1000, 'the client opens with the new one')
      await assertEcho(first, 1000, 'the first connection')
      const figures = await figuresOf(setting.server)
      assert.is(figures.get('alice')?.sessions, 1)
      assert.is(figures.get('alice-2')?.sessions, 1)
      await write(setting.server, { ...server, keys: [FRESH] })
      assert.is((await within('the end of the first', TIMEOUT_MS, first.ending)).kind, 'reset')
      await assertEcho(second, MIB, 'the second')
      await write(end, { ...own, keys: [FRESH] })
      await assertEcho(second, MIB, 'the second, at the end')
      const third = await connect(end)
      await assertEcho(third, 1000, 'a third')
    } finally {
      await setting.close()
    }
  })

  test(`a key has a limit of sessions and an end: ${server} server`, async () => {
    const soon = new Date(Date.now() + 8000).toISOString()
    const keys = [
      { ...ALICE, max_sessions: 1 },
      { ...BOB, not_after: soon },
    ]
    const setting = await Setting.open(server, METHODS[0], { keys })
    try {
      const alice = await setting.client(client, { psk: ALICE.psk })
      const app = await connect(alice)
      await assertEcho(app, 1000, 'alice')
      const bob = await connect(await setting.client(client, { psk: BOB.psk }))
      await assertEcho(bob, 1000, 'bob')
      const more = await connect(alice)
      await more.send('x')
      await waitFor(
        'a refusal',
        async () => ((await figuresOf(setting.server)).get('alice')?.sessions_refused ?? 0) > 0,
      )
      assert.is(more.received, 0)
      await assertEcho(app, 1000, 'alice, again')
      assert.is((await within('the end of bob', TIMEOUT_MS, bob.ending)).kind, 'reset')
      assert.match(setting.server.log(), /the key of bob has expired/)
      await assertEcho(app, 1000, 'alice, at last')
    } finally {
      await setting.close()
    }
  })
}

if (libevPath === undefined)
  skip(test, 'kcptun-libev as a user', 'KCPTUN_LIBEV is not set: it must name a kcptun-libev program')

test.run()
