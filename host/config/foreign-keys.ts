/** Keys of other programs and of older versions of kcptun-libev, with what to write instead. */

import type { JsonNode } from './json.ts'

const OLDER = 'an older name in kcptun-libev, write'
const GO = 'a key of the Go kcptun,'
const AUTOMATIC = `${GO} leave it out (chosen automatically; if it must be set:`
const WITHOUT = `${GO} leave it out:`

/** Advice by key; all are top-level keys there. */
const ADVICE: ReadonlyMap<string, string> = new Map([
  ['udp_bind', `${OLDER} kcp_bind`],
  ['udp_connect', `${OLDER} kcp_connect`],
  ['localaddr', `${GO} write listen`],
  ['remoteaddr', `${GO} write kcp_connect, with one port`],
  ['target', `${GO} write connect, and its listen is kcp_bind here`],
  ['key', `${GO} write psk with a key from --genpsk at both ends, or password`],
  ['crypt', `${GO} write method, such as "xchacha20poly1305_ietf"`],
  ['mtu', `${GO} write kcp.mtu: the size of IP packets, 28 bytes (IPv6: 48) more than its mtu`],
  ['QPP', `${WITHOUT} there is no such layer`],
  ['QPPCount', `${WITHOUT} there is no such layer`],
  ['mode', `${WITHOUT} retransmission and flush are controlled automatically`],
  ['sndwnd', `${AUTOMATIC} kcp.sndwnd)`],
  ['rcvwnd', `${AUTOMATIC} kcp.rcvwnd)`],
  ['nodelay', `${AUTOMATIC} kcp.nodelay)`],
  ['interval', `${AUTOMATIC} kcp.interval)`],
  ['resend', `${AUTOMATIC} kcp.resend)`],
  ['nc', `${AUTOMATIC} kcp.nc)`],
  ['sockbuf', `${AUTOMATIC} udp.sndbuf and udp.rcvbuf)`],
  ['acknodelay', `${WITHOUT} acknowledgements are timed automatically`],
  ['conn', `${WITHOUT} each connection has a conversation of its own (workers uses several processors)`],
  ['autoexpire', `${WITHOUT} each connection has a conversation of its own`],
  ['scavengettl', `${WITHOUT} each connection has a conversation of its own`],
  ['closewait', `${WITHOUT} a connection ends when both ends have delivered their data (linger limits it)`],
  ['datashard', `${WITHOUT} there is no forward error correction`],
  ['parityshard', `${WITHOUT} there is no forward error correction`],
  ['nocomp', `${WITHOUT} there is no compression`],
  ['ratelimit', `${WITHOUT} the rate is controlled automatically`],
  ['dscp', `${WITHOUT} there is no such option`],
  ['smuxver', `${WITHOUT} connections are not multiplexed`],
  ['smuxbuf', `${WITHOUT} connections are not multiplexed (memory limits buffers)`],
  ['framesize', `${WITHOUT} connections are not multiplexed`],
  ['streambuf', `${WITHOUT} connections are not multiplexed (memory limits buffers)`],
  ['snmplog', `${WITHOUT} http_listen serves figures at /metrics`],
  ['snmpperiod', `${WITHOUT} http_listen serves figures at /metrics`],
  ['quiet', `${GO} write loglevel, 3 for warnings alone`],
  ['pprof', `${WITHOUT} http_listen serves figures at /metrics`],
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
      '`kcptun-wasm init` writes files for both',
  ]
}
