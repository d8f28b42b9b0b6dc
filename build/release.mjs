// npm run release [-- NAME...] [--fast]: makes the artefacts of a release in dist/release (RELEASING.md): executables, Debian
// packages, sources of the native host, an SBOM and SHA256SUMS. NAME picks some of `artefacts`; --fast, for tests, compresses
// Debian packages less. What cannot be made on this machine is named, and the exit status is 1. Needs a build
// (`npm run build`).

import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { pipeline } from 'node:stream/promises'
import * as esbuild from 'esbuild'
import { commonOptions } from './bundles.mjs'
import { buildDebian } from './debian.mjs'
import { inProject, root } from './files.mjs'
import { buildNative, SUPPORT } from './native.mjs'

export const OUT = 'dist/release'
const WORK = '.cache/release'
/** Where Debian has the text of this licence. */
const APACHE = '/usr/share/common-licenses/Apache-2.0'
const BUN = 'node_modules/bun/bin/bun.exe'
/** Marks the place in the executable of Node where postject puts the program. */
const FUSE = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2'

export const about = JSON.parse(readFileSync(inProject('package.json'), 'utf8'))

/**
 * Executables by Bun: its name of the target, and the folder of sodium-native with the module for it. musl has none.
 * @type {Record<string, { target: string, sodium?: string }>}
 */
const bunTargets = {
  'linux-x64': { target: 'bun-linux-x64', sodium: 'linux-x64' },
  'linux-arm64': { target: 'bun-linux-arm64', sodium: 'linux-arm64' },
  'linux-x64-musl': { target: 'bun-linux-x64-musl' },
  'linux-arm64-musl': { target: 'bun-linux-arm64-musl' },
  'macos-x64': { target: 'bun-darwin-x64', sodium: 'darwin-x64' },
  'macos-arm64': { target: 'bun-darwin-arm64', sodium: 'darwin-arm64' },
  'windows-x64': { target: 'bun-windows-x64', sodium: 'win32-x64' },
  'windows-arm64': { target: 'bun-windows-arm64', sodium: 'win32-arm64' },
}

/** @param {string} name @returns {string} relative to the project */
const executable = (name) => `${OUT}/kcptun-wasm-${about.version}-${name}${name.startsWith('windows') ? '.exe' : ''}`

/** @param {string} command @param {readonly string[]} args */
const run = (command, args) =>
  execFileSync(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' })

/**
 * The program as one file for an executable.
 * @param {string} source
 * @param {string} outfile
 * @param {import('esbuild').BuildOptions} options
 */
const bundle = (source, outfile, options) =>
  esbuild.build({
    ...commonOptions,
    platform: 'node',
    minifyWhitespace: true,
    entryPoints: [source],
    outfile,
    ...options,
  })

/**
 * An executable by `bun build --compile`, for any target: Bun takes the other runtimes from the npm registry. Neither
 * .env nor bunfig.toml of the working directory are read: the program may run as root there.
 * @param {string} name
 */
async function buildBun(name) {
  const { target, sodium } = bunTargets[name] ?? { target: name }
  await bundle('runtime-bun/executable.ts', `${WORK}/bun.js`, {})
  const module = sodium && inProject(`node_modules/sodium-native/prebuilds/${sodium}/sodium-native.node`)
  if (module !== undefined && !existsSync(module)) throw new Error(`${module} is missing: npm install sodium-native`)
  const load = `(id) => id === 'sodium-native/binding' ? require(${JSON.stringify(module)}) : about`
  writeFileSync(
    inProject(`${WORK}/${name}.js`),
    `import { run } from './bun.js'\nimport about from 'sodium-native/package.json'\nawait run(${module ? load : ''})\n`,
  )
  const isOwn = target === `bun-${process.platform}-${process.arch}`
  run(inProject(BUN), [
    'build',
    '--compile',
    // the one at hand needs no download
    ...(isOwn ? [`--compile-executable-path=${inProject(BUN)}`] : []),
    `--target=${target}`,
    '--no-compile-autoload-dotenv',
    '--no-compile-autoload-bunfig',
    `${WORK}/${name}.js`,
    '--outfile',
    executable(name),
  ])
  return executable(name)
}

/** A single executable application of the Node that runs this. It has no native packages: the portable UDP path. */
async function buildSea() {
  const name = executable(`${process.platform}-${process.arch}-node`)
  await bundle('runtime-node/executable.ts', `${WORK}/node.cjs`, {
    packages: 'bundle',
    format: 'cjs',
    // packages are not looked for on the disk, where the place of the executable would decide whose they are
    define: { 'import.meta.url': 'executableUrl' },
    banner: { js: "const executableUrl = require('node:url').pathToFileURL('/kcptun-wasm').href" },
    external: ['koffi', 'sodium-native'],
  })
  const config = { main: `${WORK}/node.cjs`, output: `${WORK}/node.blob`, disableExperimentalSEAWarning: true }
  writeFileSync(inProject(`${WORK}/sea.json`), JSON.stringify(config))
  run(process.execPath, ['--experimental-sea-config', `${WORK}/sea.json`])
  copyFileSync(process.execPath, inProject(name))
  chmodSync(inProject(name), 0o755)
  const postject = inProject('node_modules/postject/dist/cli.js')
  run(process.execPath, [postject, name, 'NODE_SEA_BLOB', `${WORK}/node.blob`, '--sentinel-fuse', FUSE])
  return name
}

/** The package.json of an installed package. @param {string} name */
const installed = (name) => JSON.parse(readFileSync(inProject(`node_modules/${name}/package.json`), 'utf8'))

/**
 * CycloneDX: the packages that the program needs, from the lock file, those whose code is in dist/ (NOTICES.md), and the
 * runtimes in the executables.
 */
async function buildSbom() {
  const sbom = JSON.parse(run('npm', ['sbom', '--sbom-format', 'cyclonedx', '--package-lock-only', '--omit', 'dev']))
  for (const [, title = ''] of readFileSync(inProject('NOTICES.md'), 'utf8').matchAll(/^\| \[([^\]]+)\]/gm)) {
    const { name, version, license } = installed(title.toLowerCase())
    if (sbom.components.some((/** @type {{ name: string }} */ one) => one.name === name)) continue
    const id = `${name}@${version}`
    const licenses = [{ license: { id: license } }]
    sbom.components.push({ type: 'library', name, version, 'bom-ref': id, purl: `pkg:npm/${id}`, licenses })
  }
  const runtime = (/** @type {string} */ name, /** @type {string} */ version) => ({
    type: 'platform',
    name,
    version,
    'bom-ref': `${name}@${version}`,
  })
  sbom.components.push(runtime('bun', installed('bun').version), runtime('node', process.versions.node))
  const name = `${OUT}/kcptun-wasm-${about.version}.cdx.json`
  writeFileSync(inProject(name), `${JSON.stringify(sbom, null, 2)}\n`)
  return name
}

/** Sources of the native host with the engine as C: packages of distributions need a C compiler alone. */
async function buildNativeSource() {
  const built = await buildNative()
  const name = `kcptun-wasm-native-${about.version}`
  const folder = inProject(`${WORK}/${name}`)
  rmSync(folder, { recursive: true, force: true })
  /** @param {string} to @param {string} from @param {RegExp} files */
  const copy = (to, from, files) => {
    mkdirSync(`${folder}/${to}`, { recursive: true })
    for (const file of readdirSync(from))
      if (files.test(file)) copyFileSync(`${from}/${file}`, `${folder}/${to}/${file}`)
  }
  copy('src', inProject('runtime-c'), /\.[ch]$/)
  copy('engine', inProject(built), /^core_.*\.[ch]$/)
  copy('engine', inProject('dist'), /^kcptun_core\.h$/)
  copy('wasm2c', `${SUPPORT}`, /\.[ch]$/)
  copy('.', inProject('runtime-c'), /^(Makefile|README\.md)$/)
  copy('.', root, /^LICENSE$/)
  // that of wasm2c's support
  if (existsSync(APACHE)) copyFileSync(APACHE, `${folder}/wasm2c/LICENSE`)
  run('tar', ['-C', inProject(WORK), '--owner=0', '--group=0', '--sort=name', '-czf', `${OUT}/${name}.tar.gz`, name])
  return `${OUT}/${name}.tar.gz`
}

/** The package as it is published. */
async function buildTarball() {
  return `${OUT}/${run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', OUT]).trim()}`
}

/** @param {string} arch of Debian @param {string} from an executable */
const debian = (arch, from) => (/** @type {boolean} */ isFast) => {
  const program = executable(from)
  if (!existsSync(inProject(program))) throw new Error(`${program} is missing: make ${from} first`)
  return buildDebian({ arch, program, about, out: OUT, work: `${WORK}/debian-${arch}`, isFast })
}

/** Every artefact; later ones may need earlier ones. @type {Record<string, (isFast: boolean) => Promise<string>>} */
const artefacts = {
  ...Object.fromEntries(Object.keys(bunTargets).map((name) => [name, () => buildBun(name)])),
  node: buildSea,
  'debian-amd64': debian('amd64', 'linux-x64'),
  'debian-arm64': debian('arm64', 'linux-arm64'),
  'native-source': buildNativeSource,
  npm: buildTarball,
  sbom: buildSbom,
}

/** SHA256SUMS of everything in the folder, for `sha256sum -c`. */
async function writeSums() {
  const lines = []
  for (const file of readdirSync(inProject(OUT)).sort()) {
    if (file === 'SHA256SUMS') continue
    const hash = createHash('sha256')
    await pipeline(createReadStream(inProject(`${OUT}/${file}`)), hash)
    lines.push(`${hash.digest('hex')}  ${file}\n`)
  }
  writeFileSync(inProject(`${OUT}/SHA256SUMS`), lines.join(''))
}

/**
 * @param {readonly string[]} names empty: all, in an empty folder
 * @param {boolean} isFast
 * @returns {Promise<boolean>} whether everything was made
 */
async function release(names, isFast) {
  const unknown = names.find((name) => !(name in artefacts))
  if (unknown) throw new Error(`unknown artefact ${unknown}; there are ${Object.keys(artefacts).join(', ')}`)
  if (names.length === 0) rmSync(inProject(OUT), { recursive: true, force: true })
  for (const folder of [OUT, WORK]) mkdirSync(inProject(folder), { recursive: true })
  let good = true
  for (const [name, make] of Object.entries(artefacts)) {
    if (names.length > 0 && !names.includes(name)) continue
    try {
      process.stderr.write(`release: ${await make(isFast)}\n`)
    } catch (error) {
      good = false
      process.stderr.write(`release: FAILED ${name}: ${error instanceof Error ? error.message : error}\n`)
    }
  }
  await writeSums()
  return good
}

const words = process.argv.slice(2)
const good = await release(
  words.filter((word) => word !== '--fast'),
  words.includes('--fast'),
)
process.exitCode = good ? 0 : 1
