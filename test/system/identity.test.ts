/**
 * Change of user and group on a simulated system: the order of the calls, and that no failure leaves the program with
 * more rights than configured (protocol.md 10.5).
 */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { NotAvailable } from '../../host/errors.ts'
import { Log } from '../../host/log/log.ts'
import type { OperatingSystem } from '../../host/runtime.ts'
import { parseIdentity, takeIdentity } from '../../host/service/identity.ts'

const test = suite('identity')

const PASSWD =
  'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\nbroken\nworker:x:1000:1001::/:\n'

interface Options {
  readonly euid?: number
  /** setuid(0) still works after setuid to another user. */
  readonly leaky?: boolean
  /** The call that the system refuses. */
  readonly refuses?: string
}

function none(): never {
  throw new NotAvailable('no')
}

function setUp({ euid = 0, leaky = false, refuses = '' }: Options = {}) {
  const calls: string[] = []
  const state = { uid: euid, gid: 0 }
  const call = (name: string, ...values: readonly unknown[]): void => {
    calls.push(`${name} ${values.join(' ')}`)
    if (name === refuses) throw new Error(`EPERM, ${name}`)
  }
  const os: OperatingSystem = {
    pid: 1,
    env: () => undefined,
    readText: () => PASSWD,
    libc: none,
    watch: none,
    adoptListener: none,
    adoptConnection: none,
    identity: {
      getuid: () => state.uid,
      geteuid: () => state.uid,
      getgid: () => state.gid,
      setgroups: (groups) => call('setgroups', JSON.stringify(groups)),
      initgroups: (user, group) => call('initgroups', user, group),
      setgid(group) {
        if (state.uid !== 0 && !leaky) throw new Error('EPERM')
        call('setgid', group)
        state.gid = Number(group)
      },
      setuid(user) {
        if (state.uid !== 0 && !leaky) throw new Error('EPERM')
        call('setuid', user)
        state.uid = user === 'nobody' ? 65534 : Number(user)
      },
    },
    daemon: undefined,
  }
  const lines: string[] = []
  const log = new Log((_, text) => lines.push(text))
  return { calls, lines, take: (text: string) => takeIdentity(os, parseIdentity(text), log) }
}

test('MUST 72: each form of the key user changes what it names, groups before the user', () => {
  for (const [text, expected] of [
    ['nobody', ['setgroups []', 'setuid nobody']],
    ['nobody:', ['initgroups nobody 65533', 'setgid 65533', 'setuid nobody']],
    ['1000:', ['initgroups worker 1001', 'setgid 1001', 'setuid 1000']],
    ['nobody:100', ['setgroups []', 'setgid 100', 'setuid nobody']],
    ['1234:5678', ['setgroups []', 'setgid 5678', 'setuid 1234']],
    [':100', ['setgroups []', 'setgid 100']],
  ] as const) {
    const { calls, take } = setUp()
    take(text)
    assert.equal(calls, expected, text)
  }
})

test('a warning is logged when user or group stays root', () => {
  for (const [text, warning] of [
    ['nobody', /group is still root/],
    [':100', /still running as root/],
    ['nobody:100', undefined],
  ] as const) {
    const { lines, take } = setUp()
    take(text)
    const warnings = lines.filter((line) => line.startsWith('W'))
    assert.is(warnings.length, warning === undefined ? 0 : 1, text)
    if (warning !== undefined) assert.match(warnings[0] ?? '', warning)
  }
})

test('texts that name no user or group are rejected before any call', () => {
  for (const text of ['', ':', 'a:b:c', 'a::', '4294967295', 'a:99999999999']) {
    assert.throws(() => parseIdentity(text), /config key user/, text)
  }
})

test('any refused call, and any possibility to regain root, is an error', () => {
  for (const refuses of ['initgroups', 'setgid', 'setuid']) {
    assert.throws(() => setUp({ refuses }).take('nobody:'), /cannot run as "nobody:": EPERM/, refuses)
  }
  assert.throws(() => setUp({ refuses: 'setgroups' }).take('nobody'), /EPERM/)
  assert.throws(() => setUp({ leaky: true }).take('nobody:'), /: root could be regained/)
  assert.throws(() => setUp().take('4711:'), /no login group/)
  assert.throws(() => setUp({ euid: 1000 }).take('nobody'), /only root can change the user, running as uid 1000/)
  assert.throws(() => takeIdentity(undefined, parseIdentity('a'), new Log(() => {})), /not available/)
})

test.run()
