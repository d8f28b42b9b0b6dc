// A Debian package that carries an executable (build/release.mjs): program, units, manual, completion, empty folder for
// the configuration. Nothing is started: there is no configuration yet.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { filesBelow, inProject } from './files.mjs'

const UNITS = "kcptun-wasm.service 'kcptun-wasm@*.service'"

/** What the executable contains besides the program. */
const CONTENTS = `The executable contains the runtime Bun (MIT; it links WebKit's JavaScriptCore, LGPL-2, and the libraries that
https://bun.sh/docs/project/license lists), libsodium (ISC) as sodium-native (MIT) and as libsodium-wrappers (ISC), and
hono and @hono/node-server (MIT).
`

const postinst = `#!/bin/sh
set -e
if [ "$1" = configure ]; then
	getent passwd kcptun-wasm >/dev/null ||
		adduser --system --group --quiet --no-create-home --home /nonexistent kcptun-wasm
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		[ -z "$2" ] || systemctl try-restart ${UNITS}
	fi
fi
`

const prerm = `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl stop ${UNITS}
fi
`

/**
 * The control file. libstdc++, OpenSSL and libsodium are used where they are: without them encryption takes more CPU
 * time.
 * @param {{ version: string, author: { name: string, email: string }, homepage: string, description: string }} about
 * @param {string} arch
 * @param {number} kib
 */
const control = ({ version, author, homepage, description }, arch, kib) => `Package: kcptun-wasm
Version: ${version.replace('-', '~')}-1
Architecture: ${arch}
Maintainer: ${author.name} <${author.email}>
Installed-Size: ${kib}
Depends: libc6 (>= 2.17), adduser
Recommends: libstdc++6, libssl3 | libssl3t64, libsodium23 | libsodium26
Section: net
Priority: optional
Homepage: ${homepage}
Description: encrypted TCP port forwarder over KCP
 ${description}.
`

/**
 * @param {object} options
 * @param {string} options.arch of Debian
 * @param {string} options.program the executable
 * @param {any} options.about package.json
 * @param {string} options.out folder of the package
 * @param {string} options.work folder for its files; replaced
 * @param {boolean} options.isFast compresses less
 * @returns {Promise<string>} the package, relative to the project
 */
export async function buildDebian({ arch, program, about, out, work, isFast }) {
  rmSync(inProject(work), { recursive: true, force: true })
  /** @param {string} path @param {string | Uint8Array} content @param {number} [mode] */
  const write = (path, content, mode = 0o644) => {
    const full = join(inProject(work), path)
    mkdirSync(dirname(full), { recursive: true, mode: 0o755 })
    writeFileSync(full, content)
    chmodSync(full, mode)
  }
  const text = (/** @type {string} */ path) => readFileSync(inProject(path), 'utf8')
  const zipped = (/** @type {string} */ path) => gzipSync(text(path), { level: 9 })
  const shared = 'usr/share'

  const bin = join(inProject(work), 'usr/bin/kcptun-wasm')
  mkdirSync(dirname(bin), { recursive: true })
  copyFileSync(inProject(program), bin)
  chmodSync(bin, 0o755)
  for (const unit of ['kcptun-wasm.service', 'kcptun-wasm@.service'])
    write(`lib/systemd/system/${unit}`, text(`contrib/systemd/${unit}`))
  write(`${shared}/man/man8/kcptun-wasm.8.gz`, zipped('docs/kcptun-wasm.8'))
  write(`${shared}/man/man5/kcptun-wasm.json.5.gz`, zipped('docs/kcptun-wasm.json.5'))
  write(`${shared}/doc/kcptun-wasm/changelog.gz`, zipped('CHANGELOG.md'))
  write(`${shared}/doc/kcptun-wasm/copyright`, `${text('LICENSE')}\n${CONTENTS}\n${text('NOTICES.md')}`)
  // by the build for this machine: the executable may be for another one
  const completion = execFileSync(process.execPath, [inProject('dist/node/cli.js'), 'completions', 'bash'])
  write(`${shared}/bash-completion/completions/kcptun-wasm`, completion)
  mkdirSync(join(inProject(work), 'etc/kcptun-wasm'), { recursive: true, mode: 0o755 })
  const bytes = filesBelow(work).reduce((sum, file) => sum + statSync(inProject(file)).size, 0)
  write('DEBIAN/control', control(about, arch, Math.ceil(bytes / 1024)))
  write('DEBIAN/postinst', postinst, 0o755)
  write('DEBIAN/prerm', prerm, 0o755)

  const name = `${out}/kcptun-wasm_${about.version.replace('-', '~')}-1_${arch}.deb`
  const compression = isFast ? ['-Zgzip', '-z1'] : ['-Zxz']
  execFileSync('dpkg-deb', [...compression, '--root-owner-group', '--build', inProject(work), inProject(name)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return name
}
