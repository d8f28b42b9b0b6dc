/** Targets in the host: each gives a byte string to a parser and checks what comes of it. */
import { MAIN_OPTIONS, parseArgs } from '../../../host/cli/args.ts'
import { parseOptions } from '../../../host/cli/options.ts'
import { formatHostPort } from '../../../host/config/generate.ts'
import { ConfigError } from '../../../host/errors.ts'
import { readSockaddr, SOCKADDR_IN6_BYTES, writeSockaddr } from '../../../host/linux/sockaddr.ts'
import { jsonLine } from '../../../host/log/json.ts'
import { formatRecord } from '../../../host/log/syslog.ts'
import { SessionFilter } from '../../../host/monitoring/stats.ts'
import { parseStatsQuery, parseTarget } from '../../../host/monitoring/target.ts'
import {
  canonicalIp,
  formatAddress,
  ipFamily,
  parseHostPort,
  readRecord,
  type SocketAddress,
  sameAddress,
  writeRecord,
} from '../../../host/net/address.ts'
import { AddressSpelling } from '../../../host/net/native-address.ts'
import { parseIdentity } from '../../../host/service/identity.ts'
import { HeadReader, isNoContent, judgeRequest } from '../../../host/transport/obfs/cover.ts'
import { concat, utf8 } from '../../../testkit/sim/wire.ts'
import { fault } from '../pattern.ts'
import { CONFIG_TARGET } from './config-target.ts'
import { hostCounters } from './coverage.ts'
import { HTTP_TARGET } from './http-target.ts'
import type { Subject, Target } from './loop.ts'
import { planted } from './planted.ts'

const BYTES_MAX = 400
/** Numbers of interfaces that a text may have: up to nine digits. */
const ZONES = 1e9

const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** A parser that keeps nothing between inputs. */
function stateless(name: string, run: (input: Uint8Array) => void, seeds: readonly string[], words: string): Target {
  const subject: Subject = { counters: hostCounters, run }
  return {
    name,
    seeds: seeds.map(utf8),
    dictionary: words.split(' ').map(utf8),
    bytesMax: BYTES_MAX,
    inputsEach: 1,
    make: () => subject,
  }
}

/** What a parser returns; undefined if it refuses with a ConfigError that has all its parts. */
function accepted<Result>(parse: () => Result): Result | undefined {
  try {
    return parse()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    if (error.reason === '' || error.key === '') fault(`refused without key or reason: ${error.message}`)
    return undefined
  }
}

const spelling = new AddressSpelling(() => ({ eth0: [{ family: 'IPv6', scopeid: 2 }], lo: undefined }), false)

/** Text, record, struct and text again. */
function checkAddress(address: SocketAddress): void {
  const record = new Uint8Array(24)
  writeRecord(address, record, 0)
  const again = readRecord(record, 0) ?? fault('a record of no family')
  if (!sameAddress(again, { ...address, address: canonicalIp(address.address) ?? '' }))
    fault('a record reads differently')
  const text = formatAddress(again)
  const parsed = parseHostPort('x', text, 'connect')
  const back = spelling.parse(parsed.host)
  if (back === null || !sameAddress(again, { ...back, port: parsed.port })) fault(`${text} reads differently`)
  if (formatAddress({ ...back, port: parsed.port }) !== text) fault(`${text} is written differently`)
  const view = new DataView(new ArrayBuffer(SOCKADDR_IN6_BYTES))
  for (const isLittle of [true, false]) {
    writeSockaddr(again, view, 0, isLittle)
    const read = readSockaddr(view, 0, isLittle)
    if (read === undefined || !sameAddress(read, again)) fault(`${text} as sockaddr reads differently`)
  }
}

function address(input: Uint8Array): void {
  const text = textOf(input)
  for (const role of ['bind', 'connect'] as const) {
    const parsed = accepted(() => parseHostPort('listen', text, role))
    if (parsed === undefined) continue
    const written = formatHostPort(parsed)
    const again = parseHostPort('listen', written, role)
    if (again.host !== parsed.host || again.port !== parsed.port) fault(`${written} reads differently`)
    const ip = spelling.parse(parsed.host)
    if (ip !== null)
      checkAddress({ ...ip, address: canonicalIp(ip.address) ?? fault('no canonical form'), port: parsed.port })
  }
  const family = ipFamily(text)
  const canonical = canonicalIp(text)
  if ((family === 0) !== (canonical === undefined)) fault('ipFamily and canonicalIp disagree')
  if (canonical === undefined) return
  if (canonicalIp(canonical) !== canonical) fault(`${canonical} is not canonical`)
  // the platform's own parser
  const url = URL.canParse(family === 4 ? `http://${text}` : `http://[${text}]`)
  if (!url) fault(`${text} is no address for URL`)
}

function sockaddr(input: Uint8Array): void {
  const bytes = new Uint8Array(SOCKADDR_IN6_BYTES)
  bytes.set(input.subarray(0, SOCKADDR_IN6_BYTES))
  const read = readSockaddr(new DataView(bytes.buffer), 0, true)
  if (read !== undefined && read.scope < ZONES) checkAddress(read)
  const padded = concat(input, new Uint8Array(24))
  // the number of a local address has no text
  padded[1] = 0
  const record = readRecord(padded, 0)
  if (record !== undefined && record.scope < (record.family === 6 ? ZONES : 1)) checkAddress(record)
}

function query(input: Uint8Array): void {
  const text = textOf(input)
  const parsed = parseTarget(text)
  parseStatsQuery(text)
  if (parsed === undefined) return
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not get through
  if (/[\u0000-\u001f\u007f]/.test(parsed.name)) fault('a control character in a path')
  const stats = parseStatsQuery(parsed.query)
  if (stats !== undefined && !FILTERS.includes(stats.sessions)) fault(`sessions = ${stats.sessions}`)
  const again = parseTarget(`/${encodeURIComponent(parsed.name)}${parsed.more ? '/' : ''}?${parsed.query}`)
  if (again?.name !== parsed.name || again.more !== parsed.more || again.query !== parsed.query)
    fault('a target reads differently')
}

function args(input: Uint8Array): void {
  const words = textOf(input).split('\n')
  const parsed = parseArgs(words)
  if (parsed.kind === 'error' && parsed.message === '') fault('refused without a message')
  if (parsed.kind === 'run' && parsed.config !== undefined) {
    const { config, user, verbosity, daemonize, logFormat } = parsed
    const flag = Array.from({ length: Math.abs(verbosity) }, () => (verbosity < 0 ? '-s' : '-v'))
    // a value that looks like an option needs the attached form
    const option = (name: string, value: string): string[] => (/^-./.test(value) ? [name + value] : [name, value])
    const written = [...option('-c', config), ...(user === undefined ? [] : option('-u', user)), ...flag]
    if (daemonize) written.push('-d')
    const again = parseArgs([...written, '--log-format', logFormat])
    if (JSON.stringify(again) !== JSON.stringify(parsed)) fault('a command line reads differently')
  }
  const given = parseOptions(MAIN_OPTIONS, words)
  if (given === '') fault('refused without a message')
  const identity = words[0] === undefined ? undefined : accepted(() => parseIdentity(words[0] ?? ''))
  if (identity?.user === undefined && identity?.group === undefined && identity !== undefined)
    fault('an identity of nobody')
}

function log(input: Uint8Array): void {
  const text = textOf(input)
  const line = jsonLine(input.length % 9, new Date(0), text)
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these must not get through
  if (/[\u0000-\u001f\u007f-\u009f]/.test(line)) fault('a control character in a line of JSON')
  const parsed = JSON.parse(line) as { text: string; session?: string; peer?: string }
  if (parsed.text !== text) fault('a text reads differently')
  if (parsed.session !== undefined && !/^[0-9A-F]{8}$/.test(parsed.session)) fault('a session that is no conv')
  if (parsed.peer !== undefined && !text.includes(parsed.peer)) fault('a peer that is not in the text')
  if (!formatRecord(input.length, new Date(0), 1, text).endsWith(`: ${text}`)) fault('a record without its text')
}

/** Heads of the cover connections of dpi/tcp-wnd, in two chunks. */
function cover(input: Uint8Array): void {
  const at = input[0] ?? 0
  const reader = new HeadReader()
  const bytes = input.subarray(1)
  const first = reader.read(bytes.subarray(0, at))
  const whole = new HeadReader().read(bytes)
  const read = first ?? reader.read(bytes.subarray(at))
  if (typeof read !== typeof whole) fault('a head depends on how it is cut')
  if (read === undefined || read === 'too long') return
  if (typeof whole === 'object' && whole.head !== read.head) fault('a head depends on how it is cut')
  const reaction = judgeRequest(read.head)
  if (![204, 400, 404, 'close'].includes(reaction)) fault(`reaction ${reaction}`)
  if (isNoContent(read.head) && reaction === 204) fault('both a request and a response')
}

const FILTERS: readonly number[] = Object.values(SessionFilter)
const GENERATE = 'GET /generate_204 HTTP/1.1\r\nHost: a\r\n\r\n'

/** Not among the targets that run without being named. */
export const PLANTED: Target = { ...stateless('planted', planted, ['seed'], 'word'), bytesMax: 16 }

export const HOST_TARGETS: readonly Target[] = [
  stateless(
    'address',
    address,
    [
      '127.0.0.1:80',
      '[::1]:53',
      '*:http',
      'name.example:0',
      '::ffff:1.2.3.4',
      '[fe80::1%eth0]:1',
      '[1:2:3:4:5:6:7:8]:65535',
      '',
    ],
    ':: : [ ] % %2 %eth0 255 256 0 00 65535 65536 ffff 1.2.3.4 ::ffff: fe80:: * http https . localhost',
  ),
  {
    ...stateless(
      'sockaddr',
      sockaddr,
      ['\x02\0\0\x50\x7f\0\0\x01', `\x0a\0\0\x50\0\0\0\0${'\0'.repeat(20)}`, `\x06\0${'\0'.repeat(22)}`],
      '\x02\0 \x0a\0 \x06\0 \x04\0',
    ),
    bytesMax: 64,
  },
  CONFIG_TARGET,
  stateless(
    'args',
    args,
    ['-c\na.json\n-v\n-u\nnobody:', '--genpsk\nx', ':root', '7:8', '--\n-c', 'check\n-h'],
    `${MAIN_OPTIONS.flatMap(({ long, short }) => [long, short ?? '-']).join('\n ')}\n \n -- plain json : 4294967295`,
  ),
  stateless(
    'query',
    query,
    ['/stats?sessions=all&nobanner=1', 'http://h/stats', '//h/x/y?z#f', '/%41%2f', 'sessions=2&nobanner'],
    'sessions= nobanner= all none active connected 0 3 true & = % %00 %7f %e2%82%ac + ? # / // http:// healthy stats.json',
  ),
  HTTP_TARGET,
  stateless(
    'log',
    log,
    ['[session:0000BEEF] peer moved from 1.2.3.4:5 to [fe80::1%2]:9', 'no answer from 1.2.3.4:5', '\x7f\x9b'],
    '[session: ] from to peer\u0020found\u0020at 1.2.3.4:5 [::1]:2 \u009b \u007f',
  ),
  stateless(
    'cover',
    cover,
    [`\x09${GENERATE}`, '\x80HTTP/1.1 204 No Content\r\nServer: nginx\r\n\r\n'],
    'GET HTTP/1.1 HTTP/1.0 204 \r\n \r\n\r\n : Host: /generate_204 \t',
  ),
]
