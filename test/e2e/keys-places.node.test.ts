// time limit: 240 s
/** Several keys over IPv6, with workers, and after a trap of the engine. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import {
  ALICE,
  assertEcho,
  BOB,
  CAROL,
  connect,
  figuresOf,
  reload,
  Setting,
  TIMEOUT_MS,
} from '../../testkit/key-setting.ts'
import { MIXED_PAIRS } from '../../testkit/pairs.ts'
import type { Program } from '../../testkit/process.ts'
import type { TcpEnd } from '../../testkit/tcp.ts'
import { fragileCommand, trap } from '../../testkit/trap.ts'
import { waitFor, within } from '../../testkit/wait.ts'

/** Clients of each user with a server that has two workers: a worker gets those that hash to it. */
const CLIENTS = 6
/** More than the engine ends at once. */
const SESSIONS = 300
const METHOD = 'xchacha20poly1305_ietf'

const test = suite('keys: places')

async function join(setting: Setting, program: Program, user: { psk: string }): Promise<TcpEnd> {
  const app = await connect(await setting.client(program, { psk: user.psk }))
  await assertEcho(app, 1000, user.psk)
  return app
}

for (const { server, client } of MIXED_PAIRS) {
  test(`hundreds of sessions of a key end with it, and those of another go on: ${server} server`, async () => {
    const setting = await Setting.open(server, METHOD, { keys: [ALICE, BOB] })
    try {
      const bobsEnd = await setting.client(client, { psk: BOB.psk })
      const alice = await join(setting, server, ALICE)
      const bobs: TcpEnd[] = []
      for (let i = 0; i < SESSIONS; i++) bobs.push(await connect(bobsEnd))
      await Promise.all(bobs.map((bob) => assertEcho(bob, 1000, 'a bob')))
      await reload(setting.server, { keys: [CAROL, ALICE] })
      for (const bob of bobs) assert.is((await within('the end of a bob', TIMEOUT_MS, bob.ending)).kind, 'reset')
      await assertEcho(alice, 1000, 'alice')
      // and it may return
      await reload(setting.server, { keys: [BOB, ALICE] })
      await assertEcho(await connect(bobsEnd), 1000, 'bob')
      await assertEcho(alice, 1000, 'alice')
    } finally {
      await setting.close()
    }
  })

  test(`users over IPv6, some without native code: ${server} server`, async () => {
    for (const native of [true, false]) {
      const setting = await Setting.open(server, METHOD, { keys: [ALICE, BOB, CAROL], native }, '::1')
      try {
        for (const user of [CAROL, BOB, ALICE]) await join(setting, client, user)
        const figures = await figuresOf(setting.server)
        for (const { name } of [ALICE, BOB, CAROL]) assert.is(figures.get(name)?.sessions_opened, 1, name)
      } finally {
        await setting.close()
      }
    }
  })

  test(`a key that a reload removes ends its sessions in every worker: ${server} server`, async () => {
    const setting = await Setting.open(server, METHOD, { keys: [ALICE, BOB], workers: 2 })
    try {
      const alices: TcpEnd[] = []
      const bobs: TcpEnd[] = []
      for (let i = 0; i < CLIENTS; i++) {
        alices.push(await join(setting, client, ALICE))
        bobs.push(await join(setting, client, BOB))
      }
      await waitFor(
        'figures of both workers',
        async () => (await figuresOf(setting.server)).get('bob')?.sessions === CLIENTS,
        TIMEOUT_MS,
      )
      await reload(setting.server, { keys: [CAROL, ALICE] })
      for (const bob of bobs) assert.is((await within('the end of a bob', TIMEOUT_MS, bob.ending)).kind, 'reset')
      for (const alice of alices) await assertEcho(alice, 1000, 'an alice')
      await join(setting, client, CAROL)
    } finally {
      await setting.close()
    }
  })

  test(`after a trap of the engine every user is served again: ${server} server`, async () => {
    const options = { command: fragileCommand(server) }
    const setting = await Setting.open(server, METHOD, { keys: [ALICE, BOB] }, '127.0.0.1', options)
    try {
      const clients = [await setting.client(client, { psk: ALICE.psk }), await setting.client(server, { psk: BOB.psk })]
      for (const end of clients) await assertEcho(await connect(end), 1000, 'before')
      await trap(setting.server)
      for (const end of clients) await assertEcho(await connect(end), 1000, 'after')
      const figures = await figuresOf(setting.server)
      for (const { name } of [ALICE, BOB]) assert.is(figures.get(name)?.sessions_opened, 2, name)
    } finally {
      await setting.close()
    }
  })
}

test.run()
