// time limit: 240 s
/**
 * What build/release.mjs makes for this machine: the executables by Bun and by Node, and the Debian package, installed
 * on a copy of this system: each makes a key, checks a configuration, and client and server carry a transfer.
 */
import { spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { buildNative } from '../../testkit/native.ts'
import { type Config, freePort, projectRoot, type Running, start, writeConfig } from '../../testkit/process.ts'
import { dial, echoTarget, patternDigest } from '../../testkit/tcp.ts'
import { within } from '../../testkit/wait.ts'
import { skip } from '../skip.ts'

const BYTES = 2_000_000
const TIMEOUT_MS = 30_000
const { version } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as { version: string }
const release = join(projectRoot, 'dist/release')
const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-release-'))

function output(command: readonly string[], cwd = directory): string {
  const [first = '', ...rest] = command
  const { status, stdout, stderr, error } = spawnSync(first, rest, { cwd, encoding: 'utf8', timeout: 120_000 })
  if (status !== 0) throw new Error(`${command.join(' ')}: ${error?.message ?? `status ${status}`}\n${stdout}${stderr}`)
  return stdout
}

/** The text of --list-methods, which the log also holds. */
function methods(command: readonly string[]): string {
  const [first = '', ...rest] = command
  return spawnSync(first, [...rest, '--list-methods'], { cwd: directory, encoding: 'utf8' }).stderr
}

const make = (...names: readonly string[]): string =>
  output([process.execPath, 'build/release.mjs', '--fast', ...names], projectRoot)

/** A transfer there and back through two processes of a program. @returns the logs of both */
async function transfer(
  command: readonly string[],
  program: 'bun' | 'node' | 'native',
  more: Config = {},
): Promise<string> {
  const target = await echoTarget()
  const [udp, tcp] = [`127.0.0.1:${await freePort()}`, await freePort()]
  const common = { method: 'xchacha20poly1305_ietf', psk: newKey(), ...more }
  const configs: readonly Config[] = [
    { ...common, kcp_bind: udp, connect: target.address },
    { ...common, kcp_connect: udp, listen: `127.0.0.1:${tcp}` },
  ]
  const ends: Running[] = []
  try {
    for (const config of configs) ends.push(await start(program, config, { command }))
    const app = await dial('127.0.0.1', tcp)
    await app.pour(BYTES, 1)
    app.finish()
    const ending = await within('the echo', TIMEOUT_MS, app.ending)
    assert.is(ending.sha256, patternDigest(BYTES, 1))
    assert.is(ending.kind, 'fin')
    for (const end of ends) assert.equal(await end.stop(), { code: 0, signal: null })
    return ends.map((end) => end.log()).join('')
  } finally {
    for (const end of ends) await end.stop('SIGKILL')
    await target.close()
  }
}

/** What a user does first. */
function tryCommands(command: readonly string[], runtime: string): void {
  assert.match(output([...command, '--version']), `kcptun-wasm ${version} (${runtime} `)
  assert.match(output([...command, '--genpsk', 'aes256gcm']), /^[\w+/]{43}=$/m)
  const config = { method: 'aes256gcm', psk: newKey(), kcp_bind: '127.0.0.1:9', connect: '127.0.0.1:9' }
  const file = writeConfig(config)
  try {
    output([...command, 'check', '-c', file.path])
  } finally {
    file.remove()
  }
}

const newKey = (): string => randomBytes(32).toString('base64')

/** The program goes to the background with its arguments: it serves there. */
async function goToBackground(command: readonly string[]): Promise<void> {
  const kcp_bind = `127.0.0.1:${await freePort()}`
  const file = writeConfig({ method: 'aes256gcm', psk: newKey(), kcp_bind, connect: '127.0.0.1:9', loglevel: 5 })
  const [, pid] = /daemon started, pid (\d+)/.exec(output([...command, '-d', '-c', file.path])) ?? []
  try {
    assert.ok(pid)
    output([...command, 'health', '-c', file.path])
  } finally {
    if (pid !== undefined) process.kill(Number(pid))
    file.remove()
  }
}

/** The recipe of OpenWrt with its build system replaced by what it stands for. @returns where the package is installed */
function buildRecipe(sources: string): string {
  const [rules, installed] = [join(directory, 'openwrt'), join(directory, 'installed')]
  mkdirSync(rules)
  writeFileSync(join(rules, 'rules.mk'), 'INSTALL_DIR := install -d\nINSTALL_BIN := install -m 755\n')
  const steps = `\t$$(call Build/Compile)\n\t$$(call Package/$(1)/install,${installed})\n`
  writeFileSync(join(rules, 'package.mk'), `define BuildPackage\nall:\n${steps}endef\n`)
  const settings = [`TOPDIR=${rules}`, `INCLUDE_DIR=${rules}`, `PKG_BUILD_DIR=${sources}`, 'PKG_JOBS=-j2']
  output(['make', ...settings, 'TARGET_CC=cc', 'TARGET_CFLAGS=-O0'], join(projectRoot, 'contrib/openwrt'))
  return installed
}

const test = suite('release')
const mounted: string[] = []
test.after(() => {
  for (const path of mounted.reverse()) spawnSync('umount', ['-l', path])
  rmSync(directory, { recursive: true, force: true })
})

/** A copy of this system in which a package can be installed: what is written stays in memory. @returns why not */
function copyOfSystem(root: string): string | undefined {
  if (process.getuid?.() !== 0) return 'not root'
  if (!existsSync('/usr/bin/dpkg')) return 'not a Debian system'
  const layers = join(directory, 'layers')
  for (const path of [layers, root]) mkdirSync(path)
  const mount = (path: string, ...words: readonly string[]): string | undefined => {
    const { status, stderr } = spawnSync('mount', [...words, path], { encoding: 'utf8' })
    if (status === 0) mounted.push(path)
    return status === 0 ? undefined : `no file system over this one: ${stderr.trim()}`
  }
  const why = mount(layers, '-t', 'tmpfs', 'tmpfs')
  if (why !== undefined) return why
  for (const name of ['upper', 'work']) mkdirSync(join(layers, name))
  const options = `lowerdir=/,upperdir=${layers}/upper,workdir=${layers}/work`
  const bind = (path: string): string | undefined => mount(`${root}${path}`, '--bind', path)
  return mount(root, '-t', 'overlay', '-o', options, 'overlay') ?? bind('/proc') ?? bind('/dev') ?? bind('/tmp')
}

const isHere = process.platform === 'linux' && process.arch === 'x64'
if (!isHere) {
  skip(test, 'all', `executables of ${process.platform} ${process.arch} are not tested`)
} else {
  make('linux-x64', 'node', 'debian-amd64')
  const bun = join(release, `kcptun-wasm-${version}-linux-x64`)
  const node = join(release, `kcptun-wasm-${version}-linux-x64-node`)

  test('the executable of Bun carries data, with the fast UDP path and native ciphers', async () => {
    tryCommands([bun], 'bun')
    // with the system's OpenSSL and libsodium where both are present
    assert.match(methods([bun]), /xchacha20poly1305_ietf +\((sodium-native |OpenSSL .*, with libsodium)/)
    assert.match(methods([bun]), /xsalsa20poly1305 +\(sodium-native /)
    assert.match(await transfer([bun], 'bun'), 'udp path: fast (recvmmsg')
  })

  test('its workers and its daemon are this executable', async () => {
    await transfer([bun], 'bun', { workers: 2, udp: { reuseport: true } })
    await goToBackground([bun])
  })

  test('it has the portable cipher where native code is not wanted, or cannot be written to a file', () => {
    for (const setting of ['KCPTUN_NATIVE=0', 'BUN_TMPDIR=/nonexistent', 'TMPDIR=/nonexistent'])
      assert.match(methods(['env', setting, bun]), /xsalsa20poly1305 +\(libsodium-wrappers /)
    assert.match(methods(['env', 'KCPTUN_NATIVE=0', bun]), /xchacha20poly1305_ietf +\(libsodium-wrappers /)
  })

  test('it runs nothing that lies in the working directory', () => {
    writeFileSync(join(directory, 'bunfig.toml'), 'preload = ["./evil.js"]\n')
    writeFileSync(join(directory, 'evil.js'), 'console.log("evil"); process.exit(3)\n')
    writeFileSync(join(directory, '.env'), 'KCPTUN_NATIVE=0\n')
    assert.match(output([bun, '--version']), /^kcptun-wasm /)
    assert.match(methods([bun]), 'sodium-native')
  })

  test('the executable of Node carries data', async () => {
    tryCommands([node], 'node')
    assert.match(
      await transfer([node], 'node'),
      'udp path: portable (fast: not available: an executable of Node has no native packages)',
    )
    await goToBackground([node])
    assert.match(methods([node]), /xchacha20poly1305_ietf +\(libsodium-wrappers /)
  })

  test('commands that are printed start the executable', () => {
    const cwd = join(directory, 'printed')
    for (const program of [bun, node]) {
      mkdirSync(cwd)
      const words = ['init', '--server', '127.0.0.1:4000', '--listen', '1080', '--connect', '127.0.0.1:80']
      assert.match(output([program, ...words], cwd), `${program} -c `)
      rmSync(cwd, { recursive: true })
    }
  })

  const native = buildNative()
  if ('reason' in native) skip(test, 'sources of the native host', native.reason)
  else
    test('the recipe of OpenWrt builds the sources of the native host, which carry data, and its service starts each file', async () => {
      make('native-source')
      output(['tar', 'xzf', join(release, `kcptun-wasm-native-${version}.tar.gz`)])
      const sources = join(directory, `kcptun-wasm-native-${version}`)
      const installed = buildRecipe(sources)
      await transfer([join(installed, 'usr/bin/kcptun-wasm-native')], 'native')
      const script = join(installed, 'etc/init.d/kcptun-wasm-native')
      for (const name of ['a.json', 'b.json']) writeFileSync(join(installed, 'etc/kcptun-wasm', name), '{}')
      const stubs = 'procd_open_instance() { :; }; procd_close_instance() { :; }; procd_set_param() { echo "$@"; }'
      const text = `${stubs}\n. ${script}\nCONFIGS=${installed}/etc/kcptun-wasm\nstart_service`
      const started = output(['sh', '-c', text]).match(/command .*/g)
      const command = `command /usr/bin/kcptun-wasm-native -c ${installed}/etc/kcptun-wasm/`
      assert.equal(started, [`${command}a.json`, `${command}b.json`])
    })

  test('the SBOM names what is installed, what became a part, and the runtimes, but no tools', () => {
    make('sbom')
    const text = readFileSync(join(release, `kcptun-wasm-${version}.cdx.json`), 'utf8')
    const sbom = JSON.parse(text) as { bomFormat: string; components: { name: string; version: string }[] }
    assert.is(sbom.bomFormat, 'CycloneDX')
    const names = new Set(sbom.components.map(({ name }) => name))
    for (const name of ['hono', 'libsodium', 'sodium-native', 'koffi', 'uplot', 'uqr', 'bun', 'node']) {
      assert.ok(names.has(name), name)
    }
    for (const name of ['typescript', 'esbuild', 'postject']) assert.not.ok(names.has(name), name)
    for (const { name, version } of sbom.components) assert.match(version, /^\d+\.\d+/, name)
  })

  test('SHA256SUMS names every file with its digest', () => {
    assert.match(output(['sha256sum', '-c', 'SHA256SUMS'], release), `kcptun-wasm-${version}-linux-x64: OK`)
  })

  const root = join(directory, 'root')
  const why = copyOfSystem(root)
  if (why !== undefined) skip(test, 'Debian package', why)
  else
    test('the Debian package installs, runs as its user, and is removed', async () => {
      const file = join(release, `kcptun-wasm_${version}-1_amd64.deb`)
      const digest = (): string => createHash('sha256').update(readFileSync('/etc/passwd')).digest('hex')
      const before = digest()
      writeFileSync(join(directory, 'package.deb'), readFileSync(file))
      const inside = ['chroot', root]
      output([...inside, 'dpkg', '-i', join(directory, 'package.deb')])
      const program = [...inside, '/usr/bin/kcptun-wasm']
      tryCommands(program, 'bun')
      await transfer(program, 'bun', { user: 'kcptun-wasm:' })
      const files = output([...inside, 'dpkg', '-L', 'kcptun-wasm'])
      for (const path of [
        '/lib/systemd/system/kcptun-wasm.service',
        '/usr/share/man/man8/kcptun-wasm.8.gz',
        '/usr/share/man/man5/kcptun-wasm.json.5.gz',
        '/etc/kcptun-wasm',
      ])
        assert.match(files, path)
      output([...inside, 'dpkg', '--purge', 'kcptun-wasm'])
      assert.not.ok(existsSync(join(root, 'usr/bin/kcptun-wasm')))
      assert.is(digest(), before, 'this system is as it was')
    })
}

test.run()
