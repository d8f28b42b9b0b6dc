/** Targets in the engine: datagrams, packets of the obfuscator, sequences of calls. */
import { type CoreConfig, Mode, ObfsKind, UNSET } from '../../../host/engine/core.ts'
import { address4, address6 } from '../../../testkit/sim/address.ts'
import { sealingConfig } from '../../../testkit/sim/sealing.ts'
import {
  ack,
  Cmd,
  concat,
  control,
  DIAL,
  EOF,
  KEEPALIVE,
  message,
  push,
  segment,
  utf8,
  What,
} from '../../../testkit/sim/wire.ts'
import { Flag, headerBytes, writePacket } from '../ip.ts'
import { Engine, type EnginePlan } from './engine.ts'
import type { Target } from './loop.ts'
import { call, deliver, Habit, Op, script } from './script.ts'

const INPUTS_EACH = 500
const BYTES_MAX = 4096
const SEALED_BYTES = 40

const CONFIG: CoreConfig = {
  mode: Mode.SERVER,
  tagBytes: 0,
  nonceBytes: 0,
  nonceStrategy: 0,
  kcpMtu: 1372,
  sndwnd: UNSET,
  rcvwnd: UNSET,
  timeout: 10,
  linger: 1,
  keepalive: 5,
  timeWait: 1,
  memoryCeiling: 4 << 20,
  maxSessions: 32,
  replayCapacity: 0,
  maxHalfOpen: 16,
  confirm: 0,
  sendOnce: 0,
  searchMtu: 0,
}

const DATA = message(1, utf8('GET / HTTP/1.1\r\n\r\n'))
const OPEN_FLIGHT = push(1, 0, concat(DIAL, DATA))
const TIME = call(Op.TIME, 11)
const DRAIN = call(Op.DRAIN)
const ALL = Habit.ACCEPT | Habit.READ
const WRITE = call(Op.WRITE, 0, 1, 0)
const SHUTDOWN = call(Op.SHUTDOWN, 0)

/** What peers of a server and of a client send. */
const DATAGRAMS: readonly Uint8Array[] = [
  OPEN_FLIGHT,
  concat(push(1, 1, DATA), ack(1, 0, 0, 1)),
  push(1, 2, EOF),
  push(1, 1, KEEPALIVE),
  ack(1, 0, 0, 1),
  ack(1, 1, 0, 2, { wnd: 0 }),
  segment({ conv: 1, cmd: Cmd.WASK }),
  segment({ conv: 1, cmd: Cmd.WINS, wnd: 1 }),
  control(What.PING, 7),
  control(What.PONG, 7),
  control(What.RESET, 1),
  concat(control(What.LISTEN, 0).subarray(0, 6), Uint8Array.of(4, 0, 10, 0, 0, 9, 0, 9), utf8('id')),
  concat(control(What.CONNECT, 0).subarray(0, 6), Uint8Array.of(4, 0, 10, 0, 0, 9, 0, 9), utf8('id')),
  control(What.PUNCH, 0).subarray(0, 6),
]
const DICTIONARY: readonly Uint8Array[] = [
  ...DATAGRAMS,
  ...DATAGRAMS.map((bytes) => deliver(bytes)),
  DIAL,
  EOF,
  KEEPALIVE,
].concat(TIME, DRAIN, WRITE, SHUTDOWN, call(Op.OPEN), call(Op.ABORT, 0), call(Op.READ, 0, 4, 0), call(Op.CONNECTED, 0))

const SERVER_SCRIPTS: readonly Uint8Array[] = [
  script(ALL, deliver(OPEN_FLIGHT), DRAIN, WRITE, DRAIN, deliver(ack(1, 0, 0, 1)), TIME),
  script(ALL | Habit.ECHO, ...DATAGRAMS.map((bytes) => deliver(bytes)), DRAIN, TIME),
  script(ALL, deliver(OPEN_FLIGHT), deliver(push(1, 1, EOF)), DRAIN, WRITE, SHUTDOWN, TIME, TIME),
  script(Habit.REFUSE, deliver(OPEN_FLIGHT), TIME),
  script(ALL, deliver(push(2, 1, DATA)), deliver(push(2, 0, DIAL)), deliver(OPEN_FLIGHT, 2), TIME),
]
const CLIENT_SCRIPTS: readonly Uint8Array[] = [
  script(ALL, call(Op.OPEN), WRITE, DRAIN, deliver(ack(1, 0, 0, 1)), deliver(push(1, 0, DATA)), TIME),
  script(ALL, call(Op.OPEN), DRAIN, deliver(concat(push(1, 0, DATA), push(1, 1, EOF))), SHUTDOWN, TIME, TIME),
  script(ALL, call(Op.OPEN), WRITE, call(Op.OPEN), DRAIN, ...DATAGRAMS.map((bytes) => deliver(bytes)), TIME),
  script(ALL, call(Op.OPEN), WRITE, DRAIN, call(Op.PEER, 1), TIME, call(Op.PING), TIME, deliver(control(What.PONG, 0))),
]
const CALL_SCRIPTS: readonly Uint8Array[] = [
  script(0, deliver(OPEN_FLIGHT), DRAIN, call(Op.CONNECTED, 0), DRAIN, call(Op.READ, 0, 0, 9), WRITE, SHUTDOWN, TIME),
  script(0, deliver(OPEN_FLIGHT), DRAIN, call(Op.CONNECTED, 0x80), TIME, call(Op.HANDLE, 2, 0, 1, 0, 0, 0, 0, 0, 9)),
  script(ALL, call(Op.CONFIGURE, 4, 0, 0, 4, 0), call(Op.NONCE), call(Op.PING), call(Op.RENDEZVOUS, 2, 105, 100), TIME),
  script(ALL, call(Op.OPEN), WRITE, call(Op.ABORT, 0), call(Op.PEER, 2), call(Op.OPEN), TIME),
]

/** A packet of a modelled peer from port 0 of the script. */
function packet(family: 4 | 6, flags: number, seq: number, payload?: Uint8Array): Uint8Array {
  const one = (host: number, port: number) => (family === 4 ? address4(host, port) : address6(host, port))
  const header = headerBytes(family)
  const length = payload === undefined ? 0 : payload.length + SEALED_BYTES
  const bytes = new Uint8Array(header + length)
  if (payload) bytes.set(payload, header)
  writePacket(bytes, { from: one(1, 0), to: one(77, 8080), flags, seq, ack: 0 }, length)
  return deliver(bytes, 0, Op.PACKET)
}

function packetScripts(family: 4 | 6, mode: number): { seeds: Uint8Array[]; words: Uint8Array[] } {
  const data = (seq: number, payload: Uint8Array) => packet(family, Flag.PSH | Flag.ACK, seq, payload)
  const syn = packet(family, Flag.SYN, 100)
  const words = [syn, packet(family, Flag.SYN | Flag.ACK, 100), packet(family, Flag.RST, 101), data(101, OPEN_FLIGHT)]
  const dial = call(Op.OBFUSCATOR, 0)
  const accept = call(Op.OBFUSCATOR, 0x10)
  const answer = packet(family, Flag.SYN | Flag.ACK, 100)
  const seeds =
    mode === Mode.SERVER
      ? [
          script(ALL, syn, DRAIN, accept, data(101, OPEN_FLIGHT), DRAIN, WRITE, TIME),
          script(ALL, packet(family, Flag.ACK, 100), accept, data(100, OPEN_FLIGHT), DRAIN, WRITE, TIME),
          script(ALL, syn, DRAIN, data(101, control(What.PING, 3)), packet(family, Flag.FIN | Flag.ACK, 300), TIME),
        ]
      : [
          script(ALL, dial, DRAIN, answer, call(Op.OPEN), WRITE, DRAIN, data(101, push(1, 0, DATA)), TIME),
          script(ALL, dial, answer, DRAIN, call(Op.PING), data(101, control(What.PONG, 3)), TIME),
        ]
  return { seeds, words: [...words, dial, accept] }
}

function target(
  name: string,
  plan: EnginePlan,
  seeds: readonly Uint8Array[],
  words: readonly Uint8Array[] = [],
): Target {
  const dictionary = [...DICTIONARY, ...words]
  return { name, seeds, dictionary, bytesMax: BYTES_MAX, inputsEach: INPUTS_EACH, make: () => new Engine(plan) }
}

function obfuscated(name: string, mode: number, kind: number, family: 4 | 6): Target {
  const config = { ...CONFIG, ...sealingConfig('random'), mode, replayCapacity: 4096, kcpMtu: 1280 }
  const { seeds, words } = packetScripts(family, mode)
  return target(name, { config, obfuscator: { kind, family } }, seeds, words)
}

const CLIENT = { ...CONFIG, mode: Mode.CLIENT }
export const ENGINE_TARGETS: readonly Target[] = [
  target('server', { config: CONFIG }, SERVER_SCRIPTS),
  target('client', { config: CLIENT }, CLIENT_SCRIPTS),
  target('rendezvous', { config: { ...CONFIG, mode: Mode.RENDEZVOUS } }, SERVER_SCRIPTS),
  target('calls', { config: { ...CONFIG, mode: Mode.SERVER | Mode.RENDEZVOUS } }, [...CALL_SCRIPTS, ...SERVER_SCRIPTS]),
  target('client-calls', { config: CLIENT }, [...CALL_SCRIPTS, ...CLIENT_SCRIPTS]),
  obfuscated('obfs-server', Mode.SERVER, ObfsKind.TCP, 4),
  obfuscated('obfs-server6', Mode.SERVER, ObfsKind.TCP, 6),
  obfuscated('obfs-client', Mode.CLIENT, ObfsKind.TCP, 4),
  obfuscated('obfs-client6', Mode.CLIENT, ObfsKind.TCP, 6),
  obfuscated('obfs-wnd', Mode.SERVER, ObfsKind.TCP_WND, 4),
]
