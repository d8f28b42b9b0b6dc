// time limit: 120 s
/** Dropping root, as shown by /proc/PID/status of the running program (protocol.md 10.5). */
import { spawn, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import type { Config } from '../../testkit/process.ts'
import { commandOf, freePort, run, start, writeConfig } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const CLIENT: Config = { listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9' }
/** A user that exists on every Linux system. */
const NOBODY = 'nobody'

const test = suite('user')

const root = process.getuid?.() === 0
const why = process.platform !== 'linux' ? 'not Linux' : root ? undefined : 'not root'

/** IDs of a process (real, effective, saved, file system), equal for all threads. */
function identityOf(pid: number) {
  const read = (file: string) => {
    const text = readFileSync(file, 'utf8')
    const field = (name: string): string =>
      new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, 'm').exec(text)?.[1]?.replaceAll(/\s+/g, ' ') ?? ''
    return { uid: field('Uid'), gid: field('Gid'), groups: field('Groups'), capabilities: field('CapEff') }
  }
  const threads = readdirSync(`/proc/${pid}/task`).map((thread) => read(`/proc/${pid}/task/${thread}/status`))
  for (const thread of threads) assert.equal(thread, threads[0], 'all threads are alike')
  return threads[0]
}

function loginOf(name: string): { uid: string; gid: string } {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((each) => each.startsWith(`${name}:`))
  const [, , uid = '', gid = ''] = (line ?? '').split(':')
  return { uid, gid }
}

const four = (id: string): string => `${id} ${id} ${id} ${id}`
const NO_CAPABILITIES = '0000000000000000'

for (const program of [...RUNTIMES, 'deno'] as const) {
  const names = {
    drop: `MUST 72: -u and the key user drop root permanently once the sockets are open: ${program}`,
    unreadable: `a file that the user cannot read is reported at start and at a reload, with a remedy: ${program}`,
    refuse: `MUST 72: an identity that cannot be assumed ends the start with status 1: ${program}`,
    later: `ports that the user cannot open later are named at the start: ${program}`,
    unprivileged: `a start as an ordinary user with user set fails with the reason: ${program}`,
  }
  if (why !== undefined) {
    for (const name of Object.values(names)) skip(test, name, why)
    continue
  }

  test(names.drop, async () => {
    const { uid, gid } = loginOf(NOBODY)
    // inherited: typical supplementary groups of root
    process.setgroups?.([0, 4, 24])
    for (const [args, user, ids, groups] of [
      [['-u', `${NOBODY}:`], undefined, { uid, gid }, gid],
      [[], `${NOBODY}:`, { uid, gid }, gid],
      [['-u', '12345:23456'], NOBODY, { uid: '12345', gid: '23456' }, ''],
      [['-u', NOBODY], undefined, { uid, gid: '0' }, ''],
    ] as const) {
      // a port that only root may bind, if the system has such ports
      const config = { ...CLIENT, listen: `127.0.0.1:${await freePort()}`, ...(user !== undefined && { user }) }
      const running = await start(program, config, { args })
      try {
        const found = identityOf(running.pid)
        assert.is(found?.uid, four(ids.uid), running.log())
        assert.is(found?.gid, four(ids.gid))
        // initgroups adds what /etc/group lists, setgroups leaves none
        if (groups === '') assert.is(found?.groups, '')
        else assert.ok(found?.groups.split(' ').includes(groups) && !found.groups.split(' ').includes('0'))
        assert.is(found?.capabilities, NO_CAPABILITIES)
      } finally {
        assert.is((await running.stop()).code, 0)
      }
    }
  })

  test(names.unreadable, async () => {
    const { gid } = loginOf(NOBODY)
    const running = await start(program, { ...CLIENT, user: `${NOBODY}:` })
    try {
      const remedy = `chgrp ${gid} ${running.path} && chmod 640 ${running.path}`
      // the file is read again after the change of identity
      await waitFor('the warning', () => running.log().includes('a reload will fail: config file '))
      assert.ok(running.log().includes(remedy), running.log())
      running.reload({ loglevel: 5 })
      await waitFor('the reload fails', () => /reload failed.*EACCES.*chgrp/.test(running.log()))
      // the remedy is sufficient
      assert.is(spawnSync('sh', ['-c', `${remedy} && chmod 755 "$(dirname ${running.path})"`]).status, 0)
      running.reload({ loglevel: 5 })
      await waitFor('the reload succeeds', () => running.log().includes('successfully reloaded'))
    } finally {
      assert.is((await running.stop()).code, 0)
    }
  })

  test(names.refuse, async () => {
    const file = writeConfig(CLIENT)
    try {
      for (const [user, pattern] of [
        ['no-such-user', /F .*cannot run as "no-such-user"/],
        ['nobody:no-such-group', /F .*cannot run as "nobody:no-such-group"/],
        ['99999:', /99999 has no login group/],
        ['', /F .*config key user = ""/],
        [':', /F .*config key user = ":"/],
      ] as const) {
        const { code, stdout, stderr } = await run(program, ['-c', file.path, '-u', user])
        assert.is(code, 1, user)
        assert.match(stdout + stderr, pattern)
        assert.not.match(stdout + stderr, /\n\s+at .+:\d+/, 'no stack trace')
      }
    } finally {
      file.remove()
    }
  })

  test(names.later, async () => {
    // not an address of this machine (RFC 5737); its port is one that only root may bind
    const running = await start(program, { ...CLIENT, listen: '203.0.113.9:7', user: `${NOBODY}:` })
    try {
      assert.match(running.log(), /W .*config key listen: as user "nobody" the port cannot be opened when its address/)
      assert.not.match(running.log(), /W .*config key kcp_bind/)
    } finally {
      await running.stop()
    }
  })

  const { uid, gid } = loginOf(NOBODY)
  const nobody = { uid: Number(uid), gid: Number(gid) }
  if (spawnSync('test', ['-r', commandOf(program)[1] ?? ''], nobody).status !== 0) {
    skip(test, names.unprivileged, `${NOBODY} cannot read the program here`)
    continue
  }
  test(names.unprivileged, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const path = join(directory, 'config.json')
      const file = writeConfig({ ...CLIENT, user: '12345:' })
      cpSync(file.path, path)
      file.remove()
      const [command, script = ''] = commandOf(program)
      const child = spawn('/bin/sh', ['-c', `chmod 755 "$0"; chmod 644 "$1"`, directory, path])
      await new Promise((done) => child.once('close', done))
      const unprivileged = spawn(command, [script, '-c', path], { ...nobody, cwd: '/' })
      let text = ''
      for (const stream of [unprivileged.stdout, unprivileged.stderr])
        stream.on('data', (chunk) => (text += String(chunk)))
      const code = await new Promise((done) => unprivileged.once('close', done))
      assert.is(code, 1, text)
      assert.match(text, new RegExp(`only root can change the user, running as uid ${uid}`))
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
}

test('MUST 72: without koffi Node starts, and each option that needs it yields one warning', async () => {
  const [command, script = ''] = commandOf('node')
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  const project = join(script, '../../..')
  try {
    cpSync(join(project, 'package.json'), join(directory, 'package.json'))
    cpSync(join(project, 'dist'), join(directory, 'dist'), { recursive: true })
    mkdirSync(join(directory, 'node_modules'))
    for (const name of readdirSync(join(project, 'node_modules'))) {
      if (name === 'koffi' || name === '@koromix' || name.startsWith('.')) continue
      symlinkSync(join(project, 'node_modules', name), join(directory, 'node_modules', name))
    }
    const file = writeConfig({
      ...CLIENT,
      netdev: 'lo',
      tcp: { sndbuf: 8192, rcvbuf: 8192, reuseport: true },
      udp: { sndbuf: 8192, rcvbuf: 8192, reuseport: true },
      log: 'syslog',
    })
    const child = spawn(command, [join(directory, 'dist/node/cli.js'), '-c', file.path])
    let text = ''
    const started = new Promise<void>((done) => {
      for (const stream of [child.stdout, child.stderr]) {
        stream.on('data', (chunk) => {
          text += String(chunk)
          if (/ start$/m.test(text)) done()
        })
      }
      child.once('close', () => done())
    })
    await started
    child.kill()
    file.remove()
    assert.match(text, /client start/, text)
    const warnings = text.split('\n').filter((line) => line.startsWith('W ') && line.includes('koffi'))
    const linux = process.platform === 'linux'
    if (!linux) return
    const [major = 0] = process.versions.node.split('.').map(Number)
    // newer Node versions have an option for reuseport; dgram can always set its buffers
    const reuseport = major < 22 ? ['tcp.reuseport', 'udp.reuseport'] : []
    for (const key of ['netdev', 'tcp.sndbuf', 'tcp.rcvbuf', ...reuseport]) {
      assert.is(warnings.filter((line) => line.includes(`config key ${key} = `)).length, 1, `${key}\n${text}`)
    }
    assert.is(warnings.filter((line) => line.includes('no system log')).length, 1, text)
    assert.not.match(text, /config key udp\.(snd|rcv)buf/)
    assert.match(
      text,
      /udp path: portable \(fast: not available: the optional package koffi is not installed \(npm install koffi\)\)/,
    )
    const forced = writeConfig({ ...CLIENT, udp: { path: 'fast' } })
    const refused = spawnSync(command, [join(directory, 'dist/node/cli.js'), '-c', forced.path], { encoding: 'utf8' })
    forced.remove()
    assert.is(refused.status, 1)
    assert.match(refused.stdout + refused.stderr, /cannot open .*: not available: the optional package koffi/)
  } finally {
    rmSync(directory, { recursive: true })
  }
})

test.run()
