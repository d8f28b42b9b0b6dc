/** Changes of configuration files that a reload takes over. */
import schema from '../../host/config/schema.json' with { type: 'json' }
import type { Random } from '../sim/random.ts'

/** Every key that a file may have, and values for it that a running endpoint takes. */
export const RELOADS: Readonly<Record<string, readonly unknown[]>> = {
  connect: ['target2.example:9000'],
  kcp_bind: ['0.0.0.0:4001', '0.0.0.0:4000'],
  kcp_connect: ['server.example:4000'],
  rendezvous_server: ['rendezvous.example:4000'],
  service_id: ['service'],
  http_token: ['correct-horse-battery'],
  netdev: [''],
  fwmark: [7],
  dscp: [46],
  'kcp.mtu': [576, 1300, 1400],
  'kcp.sndwnd': [64, 1024],
  'kcp.rcvwnd': [64, 1024],
  'kcp.nodelay': [0, 1, 2],
  'kcp.interval': [10, 100],
  'kcp.resend': [0, 2],
  'kcp.nc': [0, 1],
  'kcp.flush': [0, 1, 2],
  'kcp.redundancy': [true, false],
  'tcp.keepalive': [true],
  'tcp.nodelay': [false],
  'tcp.sndbuf': [65536],
  'tcp.rcvbuf': [65536],
  'udp.reuseport': [true],
  'udp.sndbuf': [65536],
  'udp.rcvbuf': [65536],
  'udp.path': ['portable'],
  'udp.gso': ['off'],
  'udp.gro': ['off'],
  timeout: [60, 300],
  linger: [5, 60],
  keepalive: [0, 5, 60],
  time_wait: [5, 60],
  loglevel: [6],
  log: ['discard'],
  memory: [16, 64],
  max_sessions: [30, 1000],
  replay: ['auto', 'strict'],
  when_down: ['hold', 'reset', 'close'],
}

/** Keys that a reload leaves alone; so they cannot change here. */
const FIXED = [
  'listen',
  'http_listen',
  'method',
  'psk',
  'password',
  'obfs',
  'user',
  'native',
  'workers',
  'tcp.reuseport',
]

/** Keys of the schema that have no values above and are not fixed: there must be none. */
export function missingKeys(): string[] {
  const names = Object.entries(schema.properties).flatMap(([name, value]) =>
    'properties' in value ? Object.keys(value.properties).map((key) => `${name}.${key}`) : [name],
  )
  return names.filter((name) => !(name in RELOADS) && !FIXED.includes(name))
}

/** Keys that only one side has, or only with a rendezvous server. */
const ONLY: Readonly<Record<string, (end: string, topology: string) => boolean>> = {
  connect: (end) => end === 'server',
  kcp_bind: (end, topology) => end === 'server' && topology !== 'rendezvous' && topology !== 'workers',
  kcp_connect: (end, topology) => end === 'client' && topology !== 'rendezvous',
  rendezvous_server: (_end, topology) => topology === 'rendezvous',
  service_id: (_end, topology) => topology === 'rendezvous',
  when_down: (end) => end === 'client',
}

/**
 * Keys that change together in one reload: those that only some worlds can change in every other one, and a few of all.
 * @param index selects the first of those
 */
export function drawReload(random: Random, index: number, end: string, topology: string): Record<string, unknown> {
  const names = Object.keys(RELOADS).filter((name) => ONLY[name]?.(end, topology) ?? true)
  const special = random.chance(0.5) ? names.filter((name) => name in ONLY) : []
  const first = index % names.length
  const some = Array.from({ length: random.between(4, 9) }, (_, i) => names[(first + 5 * i) % names.length] ?? '')
  const value = (name: string): unknown => RELOADS[name]?.[random.below(RELOADS[name].length)]
  return Object.fromEntries([...special, ...some].map((name) => [name, value(name)]))
}

/** A configuration with changed keys, those of an object by dotted names. */
export function changed(config: object, change: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, unknown> = structuredClone(config) as Record<string, unknown>
  for (const [name, value] of Object.entries(change)) {
    const [group = '', key] = name.split('.')
    if (key === undefined) result[name] = value
    else result[group] = { ...((result[group] as object | undefined) ?? {}), [key]: value }
  }
  return result
}
