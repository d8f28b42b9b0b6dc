// time limit: 180 s
/**
 * The service files in contrib/ as shipped, with a file as `init` writes it (owner root, mode 0600): start, reload
 * after the file was replaced by such a file, stop. What the service managers do with these files is done here: systemd
 * by its Exec lines, OpenRC and procd by their shell functions.
 */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { RUNTIMES } from '../../testkit/pairs.ts'
import { commandOf, type Program, projectRoot } from '../../testkit/process.ts'
import { waitFor } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

/** An account that exists everywhere, in place of `kcptun-wasm`. */
const USER = 'nobody'
const GROUP = spawnSync('id', ['-gn', USER], { encoding: 'utf8' }).stdout.trim()

const test = suite('service files')
const isRoot = process.platform === 'linux' && process.getuid?.() === 0

const contrib = (name: string): string => readFileSync(join(projectRoot, 'contrib', name), 'utf8')

/** Commands of a service, in the order in which its manager runs them. */
interface Service {
  readonly before: readonly string[]
  /** Runs the program. */
  readonly start: string
  readonly reload: readonly string[]
}

/** Runs shell text after the definitions of a script; prints what it prints. */
function shell(script: string, text: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', `${script}\n${text}`], { encoding: 'utf8' })
  assert.is(status, 0, stderr)
  return stdout.trim()
}

function systemd(name: string, path: string): Service {
  const unit = contrib(`systemd/${name}`).replaceAll(/\/etc\/kcptun-wasm\/(config|%i)\.json/g, path)
  const lines = (key: string): string[] =>
    [...unit.matchAll(new RegExp(`^${key}=(.*)$`, 'gm'))].map(([, command = '']) => command)
  // "+": as root; everything else as User=
  const asUser = `setpriv --reuid ${USER} --regid ${GROUP} --clear-groups `
  const command = (line: string): string =>
    (line.startsWith('+') ? line.slice(1) : asUser + line).replace('chgrp kcptun-wasm', `chgrp ${GROUP}`)
  return {
    before: lines('ExecStartPre').map(command),
    start: command(lines('ExecStart')[0] ?? ''),
    reload: lines('ExecReload').map(command),
  }
}

function openrc(path: string): Service {
  const settings = `RC_SVCNAME=kcptun-wasm config=${path} user=${USER}:`
  const script = `${settings}\nebegin() { :; }\neend() { :; }\nsupervise-daemon() { kill -HUP $MAINPID; }\n${contrib('openrc/kcptun-wasm')}`
  // a name with a dash is no function for every shell
  const run = (text: string): string => `${script.replaceAll('supervise-daemon', 'supervise_daemon')}\n${text}`
  return {
    before: [run('start_pre')],
    start: shell(run(''), 'echo "$command $command_args"'),
    reload: [run('reload')],
  }
}

function openwrt(path: string): Service {
  const stubs =
    'user_exists() { :; }\nprocd_open_instance() { :; }\nprocd_close_instance() { :; }\n' +
    'procd_set_param() { [ "$1" != command ] || { shift; echo "$@"; }; }'
  const script = `${stubs}\n${contrib('openwrt/kcptun-wasm.init')}`
    .replace(/^ACCOUNT=.*$/m, `ACCOUNT=${USER}`)
    .replace('chgrp "$ACCOUNT"', `chgrp ${GROUP}`)
  // procd runs start_service again at a reload, and signals the process whose file has changed
  return {
    before: [`${script}\nstart_tunnel ${path}`],
    start: shell(script, `start_tunnel ${path}`),
    reload: [`${script}\nstart_tunnel ${path} && kill -HUP $MAINPID`],
  }
}

/** Writes a file as `init` does, in place of an older one. */
function write(path: string, loglevel: number): void {
  writeFileSync(`${path}.new`, JSON.stringify({ listen: '127.0.0.1:0', kcp_connect: '127.0.0.1:9', loglevel }), {
    mode: 0o600,
  })
  renameSync(`${path}.new`, path)
}

async function serve(program: Program, serviceOf: (path: string) => Service): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  chmodSync(directory, 0o755)
  const path = join(directory, 'config.json')
  write(path, 4)
  const service = serviceOf(path)
  const command = commandOf(program).join(' ')
  const start = service.start.replace(/^(.*?)\S*env kcptun-wasm|^\/usr\/bin\/node .*?\.js/, `$1${command}`)
  assert.match(start, command)
  for (const line of service.before) shell('', line)
  assert.is(statSync(path).mode & 0o777, 0o640)
  const child = spawn('sh', ['-c', `exec ${start}`])
  const ended = new Promise((done) => child.once('close', done))
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (text += String(chunk)))
  try {
    await waitFor(
      'the service serves',
      () => / client start$/m.test(text),
      30_000,
      () => text,
    )
    assert.not.match(text, /a reload will fail/)
    write(path, 5)
    for (const line of service.reload) shell('', `MAINPID=${child.pid}\n${line}`)
    await waitFor(
      'the reload ends',
      () => /reload failed|successfully reloaded/.test(text),
      30_000,
      () => text,
    )
    assert.not.match(text, /reload failed/)
  } finally {
    child.kill('SIGTERM')
    await ended
    rmSync(directory, { recursive: true })
  }
}

const isReadable = (program: Program): boolean =>
  spawnSync('setpriv', ['--reuid', USER, '--regid', GROUP, '--clear-groups', 'test', '-r', commandOf(program)[1] ?? ''])
    .status === 0

for (const program of RUNTIMES) {
  for (const [title, serviceOf] of [
    ['kcptun-wasm.service', (path: string) => systemd('kcptun-wasm.service', path)],
    ['kcptun-wasm@.service', (path: string) => systemd('kcptun-wasm@.service', path)],
    ['OpenRC', openrc],
    ['OpenWrt', openwrt],
  ] as const) {
    const name = `a service starts and reloads with a file of mode 0600: ${title}, ${program}`
    if (!isRoot) skip(test, name, 'not root, or not Linux')
    else if (title.endsWith('.service') && !isReadable(program)) skip(test, name, `${USER} cannot read the program`)
    else test(name, () => serve(program, serviceOf))
  }
}

const verify = 'systemd-analyze finds no fault with the units'
if (spawnSync('systemd-analyze', ['--version']).status !== 0) skip(test, verify, 'systemd-analyze is not installed')
else {
  test(verify, () => {
    const units = ['kcptun-wasm.service', 'kcptun-wasm@.service'].map((name) =>
      join(projectRoot, 'contrib/systemd', name),
    )
    const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...units], { encoding: 'utf8' })
    assert.not.match(stderr, /kcptun-wasm@?\.service:\d+/)
  })
}

test.run()
