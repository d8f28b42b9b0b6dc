// node build/native.mjs [--sanitize]: builds the native programs (runtime-c/README.md) in dist/native from dist/core.wasm.
// --sanitize builds them with AddressSanitizer and UndefinedBehaviorSanitizer in dist/native-sanitize.
//
// wasm2c translates the engine to C; its run-time support is compiled from the sources that come with it. Objects are kept
// and used again as long as everything they were made of is the same. The compiler is $CC (default cc).

import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { exists, filesBelow, fingerprint, inProject, replaceFile, withLock } from './files.mjs'
import { core } from './plan.mjs'

const SOURCES = 'runtime-c'
const HEADER = 'dist/kcptun_core.h'
const CC = process.env['CC'] || 'cc'

/** Run-time support of wasm2c: $WASM2C_SUPPORT, or where Debian's package and a default installation have it. */
export const SUPPORT = [
  process.env['WASM2C_SUPPORT'] ?? '',
  '/usr/share/wabt/wasm2c',
  '/usr/local/share/wabt/wasm2c',
].find((path) => existsSync(`${path}/wasm-rt-impl.c`))

/** Floats must be the same on all machines: no fused operations. The others are what wasm2c asks for. */
const MODULE_FLAGS = ['-ffp-contract=off', '-frounding-math', '-fsignaling-nans', '-w']
const TRAP_FLAGS = [`-I${inProject(SOURCES)}`, `-I${SUPPORT}`, '-include', 'trap.h', '-DWASM_RT_TRAP_HANDLER=core_trap']
const WARNINGS = [
  '-std=gnu11',
  '-D_GNU_SOURCE',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-Wshadow',
  '-Wvla',
  '-Wstrict-prototypes',
  '-Wformat=2',
]
const HARDENED = ['-fstack-protector-strong', '-D_FORTIFY_SOURCE=2', '-fPIE']
const HARDENED_LINK = ['-pie', '-Wl,-z,relro,-z,now,-z,noexecstack', '-Wl,--gc-sections']
const SANITIZE = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-g']

/** Sources of each program besides core.c. @type {Record<string, string[]>} */
const EXTRAS = { replay: ['replay.c'] }

/** @typedef {{ name: string, sources: string[], libraries: string[] }} Program */

/** @returns {Program[]} */
function programs() {
  const own = new Set(Object.values(EXTRAS).flat())
  const host = filesBelow(SOURCES).filter((file) => file.endsWith('.c') && !own.has(basename(file)))
  /** @type {Program[]} */
  const list = [{ name: 'kcptun-wasm-replay', sources: [`${SOURCES}/core.c`, `${SOURCES}/replay.c`], libraries: [] }]
  if (host.includes(`${SOURCES}/main.c`)) {
    const libraries = ['-Wl,-Bstatic', '-lsodium', '-ljansson', '-Wl,-Bdynamic', '-lpthread']
    list.push({ name: 'kcptun-wasm-native', sources: host, libraries })
  }
  return list
}

/** Packages that are missing, with the file by which each is recognized. */
export function missingForNative() {
  const has = (/** @type {string} */ command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0
  const missing = []
  if (!has(CC)) missing.push(`${CC} (package gcc)`)
  if (!has('wasm2c') || SUPPORT === undefined) missing.push('wasm2c (package wabt)')
  for (const [header, name] of [
    ['sodium.h', 'libsodium-dev'],
    ['jansson.h', 'libjansson-dev'],
  ]) {
    if (!existsSync(`/usr/include/${header}`)) missing.push(`${header} (package ${name})`)
  }
  return missing
}

/** @param {string} command @param {readonly string[]} args */
function run(command, args) {
  const { status, stderr, error } = spawnSync(command, args, { cwd: inProject('.'), encoding: 'utf8' })
  if (error || status !== 0) throw new Error(`${command} ${args.join(' ')}\n${error?.message ?? stderr}`)
}

/**
 * Translates the module, and writes `core_calls.h`: one function for each export, and their list.
 * @param {string} out folder
 */
function translate(out) {
  run('wasm2c', [core.release, '--module-name', 'core', '--output', `${out}/core_module.c`])
  const header = readFileSync(inProject(`${out}/core_module.h`), 'utf8')
  // names changed in wabt 1.0.33
  const isOld = header.includes('Z_core_instance_t')
  const instance = isOld ? 'Z_core_instance_t' : 'w2c_core'
  const symbol = (/** @type {string} */ name) => (isOld ? `Z_coreZ_${name}` : `w2c_core_${name}`)
  const exports = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(inProject(core.release)))).exports
  const calls = Object.entries(exports).filter(([, value]) => typeof value === 'function')
  const functions = calls.map(([name, call]) => {
    const names = ['a', 'b', 'c', 'd'].slice(0, /** @type {Function} */ (call).length)
    const parameters = ['core_t *core', ...names.map((one) => `uint32_t ${one}`)].join(', ')
    const args = ['core', ...names].join(', ')
    return `static inline int32_t core_${name}(${parameters}) { return (int32_t)${symbol(name)}(${args}); }`
  })
  const list = calls.map(([name, call]) => `  X(${name}, ${/** @type {Function} */ (call).length})`)
  replaceFile(
    `${out}/core_calls.h`,
    `/* The exports of core.wasm, each with the instance as its first argument. Generated by build/native.mjs. */
#ifndef CORE_CALLS_H
#define CORE_CALLS_H

#include "core_module.h"

typedef ${instance} core_t;

static inline void core_instantiate(core_t *core) {
  ${isOld ? 'Z_core_init_module();\n  Z_core_instantiate(core);' : 'wasm2c_core_instantiate(core);'}
}
static inline uint8_t *core_memory(core_t *core) { return ${symbol('memory')}(core)->data; }
static inline uint64_t core_memory_size(core_t *core) { return ${symbol('memory')}(core)->size; }

${functions.join('\n')}

#define CORE_CALLS(X) \\
${list.join(' \\\n')}

#endif
`,
  )
}

/**
 * Compiles one file, unless an object of the same inputs exists.
 * @param {string} source relative to the project, or absolute
 * @param {readonly string[]} flags
 * @param {string} inputs digest of everything it includes
 * @returns {string} the object
 */
function compile(source, flags, inputs) {
  const content = readFileSync(source.startsWith('/') ? source : inProject(source))
  const key = createHash('sha256')
    .update(JSON.stringify([source, flags, inputs, CC]))
    .update(content)
    .digest('hex')
  const object = `.cache/native/${key.slice(0, 32)}.o`
  if (!exists(object)) {
    const draft = `${object}.${process.pid}`
    run(CC, [...flags, '-c', source, '-o', draft])
    run('mv', [draft, object])
  }
  return object
}

/**
 * @param {{ sanitize?: boolean, optimize?: string }} [options]
 * @returns {Promise<string>} the folder with the programs
 */
export function buildNative({ sanitize = false, optimize = process.env['NATIVE_OPTIMIZE'] || '-O2' } = {}) {
  return withLock(async () => {
    const missing = missingForNative()
    if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')}`)
    const out = sanitize ? 'dist/native-sanitize' : 'dist/native'
    const compiler = execFileSync(CC, ['--version'], { encoding: 'utf8' })
    const versions = compiler + execFileSync('wasm2c', ['--version'], { encoding: 'utf8' })
    const print = fingerprint([SOURCES, HEADER, core.release, 'build/native.mjs']) + versions + optimize + SUPPORT
    const stamp = `${out}/.stamp`
    if (exists(stamp) && readFileSync(inProject(stamp), 'utf8') === print) return out
    mkdirSync(inProject(out), { recursive: true })
    mkdirSync(inProject('.cache/native'), { recursive: true })
    translate(out)

    const common = [...optimize.split(' '), ...(sanitize ? SANITIZE : HARDENED)]
    // later versions of wabt have more of them
    const support = readdirSync(`${SUPPORT}`).filter((file) => /^wasm-rt-.*impl\.c$/.test(file))
    const generated = fingerprint([`${out}/core_module.h`]) + versions
    const objects = [
      compile(`${out}/core_module.c`, [...common, ...MODULE_FLAGS, ...TRAP_FLAGS], generated),
      ...support.map((file) => compile(`${SUPPORT}/${file}`, [...common, '-w', ...TRAP_FLAGS], versions)),
    ]
    const headers = filesBelow(SOURCES).filter((file) => file.endsWith('.h'))
    const included = fingerprint([...headers, HEADER, `${out}/core_calls.h`]) + versions
    for (const { name, sources, libraries } of programs()) {
      const flags = [...common, ...WARNINGS, `-I${out}`, '-Idist', `-isystem${SUPPORT}`, '-ffunction-sections']
      const own = sources.map((source) => compile(source, flags, included))
      const link = sanitize ? SANITIZE : HARDENED_LINK
      run(CC, [...own, ...objects, ...link, ...libraries, '-lm', '-o', `${out}/${name}.new`])
      if (!sanitize) run('strip', [`${out}/${name}.new`])
      run('mv', [`${out}/${name}.new`, `${out}/${name}`])
    }
    writeFileSync(inProject(stamp), print)
    return out
  })
}

if (process.argv[1] && import.meta.url === new URL(`file://${process.argv[1]}`).href) {
  const args = process.argv.slice(2)
  const unknown = args.find((arg) => arg !== '--sanitize')
  try {
    if (unknown !== undefined) throw new Error(`unknown argument ${unknown}`)
    const out = await buildNative({ sanitize: args.includes('--sanitize') })
    for (const { name } of programs()) process.stderr.write(`build: ${out}/${name}\n`)
  } catch (error) {
    process.stderr.write(`build: FAILED native: ${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  }
}
