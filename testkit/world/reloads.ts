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
  'rate.up': [0, 0.5, 20],
  'rate.down': [0, 0.5, 20],
  'rate.session_up': [0, 0.25],
  'rate.session_down': [0, 0.25],
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
  strategy: ['failover', 'least_rtt', 'round_robin'],
  hop_interval: [5, 60],
  listen_mode: ['0600', '0660'],
  proxy_protocol_from: [['192.0.2.0/24']],
  proxy_rules: [['deny *:25']],
  proxy_users: [{ alice: 'secret' }],
  udp_timeout: [10, 300],
}

/** Keys that a reload leaves alone, or that the worlds have no use for; so they cannot change here. */
const FIXED = [
  'listen',
  'http_listen',
  'method',
  'psk',
  'password',
  'keys',
  'obfs',
  'user',
  'native',
  'workers',
  'tcp.reuseport',
  // of worlds with other traffic: a header before it, datagrams, several tunnels
  'proxy_protocol',
  'udp_listen',
  'udp_connect',
  'tunnels',
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
  strategy: (end) => end === 'client',
  hop_interval: (end) => end === 'client',
  listen_mode: (end) => end === 'client',
  proxy_protocol_from: (end) => end === 'client',
  proxy_rules: (end) => end === 'server',
  proxy_users: (end) => end === 'server',
}

/**
 * Keys that change together in one reload: those that only some worlds can change in every other one, and a few of all.
 * @param index selects the first of those
 */
export function drawReload(random: Random, index: number, end: string, topology: string): Record<string, unknown> {
  const names = Object.keys(RELOADS).filter((name) => ONLY[name]?.(end, topology) ?? true)
  const special = random.chance(0.5) ? names.filter((name) => name in ONLY) : []
  const first = index % names.length
  // 7 divides none of the numbers of names, so that the steps reach all of them
  const some = Array.from({ length: random.between(4, 9) }, (_, i) => names[(first + 7 * i) % names.length] ?? '')
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
