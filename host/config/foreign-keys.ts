/** Keys of other programs and of older versions of kcptun-libev, with what to write instead. */

import type { JsonNode } from './json.ts'

const OLDER = 'an older name in kcptun-libev, write'
const GO = 'a key of the Go kcptun,'
const AUTOMATIC = `${GO} leave it out (chosen automatically; if it must be set:`
const WITHOUT = `${GO} leave it out:`

/** Settings of the Go kcptun without a counterpart, with the reason. */
export const GO_WITHOUT: ReadonlyMap<string, string> = new Map([
  ['QPP', 'there is no such layer'],
  ['QPPCount', 'there is no such layer'],
  ['acknodelay', 'acknowledgements are timed automatically'],
  ['conn', 'each connection has a conversation of its own (workers uses several processors)'],
  ['autoexpire', 'each connection has a conversation of its own'],
  ['scavengettl', 'each connection has a conversation of its own'],
  ['datashard', 'there is no forward error correction'],
  ['parityshard', 'there is no forward error correction'],
  ['nocomp', 'there is no compression'],
  ['smuxver', 'connections are not multiplexed'],
  ['smuxbuf', 'connections are not multiplexed (memory limits buffers)'],
  ['framesize', 'connections are not multiplexed'],
  ['streambuf', 'connections are not multiplexed (memory limits buffers)'],
  ['snmplog', 'http_listen serves figures at /metrics'],
  ['snmpperiod', 'http_listen serves figures at /metrics'],
  ['pprof', 'http_listen serves figures at /metrics'],
])

/** Advice by key; all are top-level keys there. */
const ADVICE: ReadonlyMap<string, string> = new Map([
  ['udp_bind', `${OLDER} kcp_bind`],
  ['localaddr', `${GO} write listen`],
  ['remoteaddr', `${GO} write kcp_connect, with one port`],
  ['target', `${GO} write connect, and its listen is kcp_bind here`],
  ['key', `${GO} write psk with a key from --genpsk at both ends, or password`],
  ['crypt', `${GO} write method, such as "xchacha20poly1305_ietf"`],
  ['mtu', `${GO} write kcp.mtu: the size of IP packets, 28 bytes (IPv6: 48) more than its mtu`],
  ['mode', `${WITHOUT} retransmission and flush are controlled automatically`],
  ['sndwnd', `${AUTOMATIC} kcp.sndwnd)`],
  ['rcvwnd', `${AUTOMATIC} kcp.rcvwnd)`],
  ['nodelay', `${AUTOMATIC} kcp.nodelay)`],
  ['interval', `${AUTOMATIC} kcp.interval)`],
  ['resend', `${AUTOMATIC} kcp.resend)`],
  ['nc', `${AUTOMATIC} kcp.nc)`],
  ['ratelimit', `${GO} write rate.up, in Mbit/s: its ratelimit is in bytes per second`],
  ['sockbuf', `${AUTOMATIC} udp.sndbuf and udp.rcvbuf)`],
  ['closewait', `${WITHOUT} a connection ends when both ends have delivered their data (linger limits it)`],
  ['quiet', `${GO} write loglevel, 3 for warnings alone`],
  ...[...GO_WITHOUT].map(([key, why]) => [key, `${WITHOUT} ${why}`] as const),
])

/** Keys that only a file of the Go kcptun has. */
const GO_ONLY = [
  'localaddr',
  'remoteaddr',
  'target',
  'crypt',
  'datashard',
  'parityshard',
  'autoexpire',
  'smuxver',
] as const

/** Annotations, which are no keys of a program: the schema for editors, and comments. */
const ANNOTATION = /^(\$schema$|_|\/\/|#)/

/** What to write instead of an unknown key (dotted); undefined if it is no known key of another program. */
export const adviceFor = (key: string): string | undefined => ADVICE.get(key)

/** Whether an unknown key (dotted) is a note to readers or editors. */
export const isAnnotation = (key: string): boolean => ANNOTATION.test(key.slice(key.lastIndexOf('.') + 1))

/** What a file of the Go kcptun needs beyond its keys; empty for another file. */
export function goWarnings(document: JsonNode): string[] {
  if (document.kind !== 'object') return []
  const keys = new Set(document.members.map(({ key }) => key))
  if (!GO_ONLY.some((key) => keys.has(key))) return []
  const server = keys.has('target') && keys.has('listen')
  return [
    ...(server
      ? ['"listen" is the UDP address of a server in the Go kcptun: write kcp_bind (listen makes a client)']
      : []),
    'the file is one of the Go kcptun, whose protocol is another one: both ends need kcptun-wasm or kcptun-libev; ' +
      '`kcptun-wasm import` makes files for both of it',
  ]
}
