/**
 * Network namespaces, named after the process id of the test. The test removes its own; those of a killed test are
 * removed by the next one.
 */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'

const PREFIX = 'kcptun-wasm-'

/** Reason why namespaces cannot be used here; undefined if they can. */
export const netnsProblem: string | undefined = findProblem()

function findProblem(): string | undefined {
  if (process.platform !== 'linux') return 'network namespaces need Linux'
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  for (const [program, version] of [
    ['ip', '-V'],
    ['nft', '-v'],
  ] as const) {
    if (spawnSync(program, [version]).status !== 0) return `${program} is not installed`
  }
  removeStale()
  const probe = `${PREFIX}${process.pid}-probe`
  const made = spawnSync('ip', ['netns', 'add', probe], { encoding: 'utf8' })
  if (made.status !== 0) return `network namespaces are not permitted: ${made.stderr.trim()}`
  const masquerade = 'table inet t { chain c { type nat hook postrouting priority srcnat; masquerade; }\n}\n'
  const nat = spawnSync('ip', ['netns', 'exec', probe, 'nft', '-f', '-'], { input: masquerade, encoding: 'utf8' })
  spawnSync('ip', ['netns', 'del', probe])
  return nat.status === 0 ? undefined : `NAT is not permitted in a network namespace: ${nat.stderr.trim()}`
}

/** Removes the namespaces of tests that were killed. */
function removeStale(): void {
  const list = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout ?? ''
  for (const line of list.split('\n')) {
    const [name = ''] = line.split(' ')
    if (!name.startsWith(PREFIX)) continue
    const pid = name.slice(PREFIX.length).split('-')[0]
    if (!existsSync(`/proc/${pid}`)) spawnSync('ip', ['netns', 'del', name])
  }
}

/** Runs a program until it exits. @throws with its output if it fails */
function run(command: readonly string[], input = ''): string {
  const [program = '', ...args] = command
  const { status, stdout, stderr } = spawnSync(program, args, { input, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${command.join(' ')}: ${stderr || `status ${status}`}\n${input}`)
  return stdout
}

/** One network namespace. */
export class Namespace {
  readonly name: string
  /** Name without prefix and process id. */
  readonly title: string

  constructor(title: string) {
    this.title = title
    this.name = `${PREFIX}${process.pid}-${title}`
    run(['ip', 'netns', 'add', this.name])
    this.ip('link set lo up')
    // no duplicate address detection: addresses are usable at once
    this.sysctl('net/ipv6/conf/all/accept_dad', 0)
    this.sysctl('net/ipv6/conf/default/accept_dad', 0)
    this.sysctl('net/ipv6/conf/all/accept_ra', 0)
    this.sysctl('net/ipv6/conf/default/accept_ra', 0)
  }

  /** Runs `ip` commands, one per line. */
  ip(commands: string): void {
    run(['ip', '-n', this.name, '-batch', '-'], `${commands.trim()}\n`)
  }

  /**
   * Runs a program inside.
   * @returns its standard output
   */
  run(command: readonly string[], input?: string): string {
    return run(['ip', 'netns', 'exec', this.name, ...command], input)
  }

  sysctl(key: string, value: number): void {
    this.run(['sh', '-c', `echo ${value} > /proc/sys/${key}`])
  }

  forward(): void {
    this.sysctl('net/ipv4/ip_forward', 1)
    this.sysctl('net/ipv6/conf/all/forwarding', 1)
  }

  remove(): void {
    spawnSync('ip', ['netns', 'del', this.name])
  }
}
