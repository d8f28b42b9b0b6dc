// Changes of build.mjs to a copy of assembly/: functions that write module variables for the probe, and the defects.

/** Code appended to files of assembly/. @type {Record<string, string>} */
export const appended = {
  'endpoint/migration.ts': `
import { put as modelPut, putAddress as modelPutAddress } from '../model'
export function modelPairs(now: Ticks): void {
  for (let i: u32 = 0; i < last; i++) {
    const p = pairAt(i)
    if (isOver(p, now)) continue
    modelPutAddress(oldOf(p))
    modelPutAddress(newOf(p))
    modelPut(p.state | (p.questions << 8))
    modelPut(ticksUntil(p.dueAt, now) == 0 ? 1 : 0)
  }
}
`,
  'control/pings.ts': `
import { put as modelPut } from '../model'
export function modelPings(now: Ticks): void {
  const n = min(sent, CAPACITY)
  for (let i: u32 = 0; i < n; i++) {
    const entry = entries + <usize>(i * ENTRY_BYTES)
    const open = load<u32>(entry, PURPOSE) != 0 && now - load<u32>(entry, SENT_AT) <= LIFETIME_TICKS
    if (open) modelPut(load<u32>(entry, PURPOSE))
  }
}
`,
  'packet/remote.ts': `
import { put as modelPut } from '../model'
export function modelRemote(at: usize): void {
  const r = changetype<Remote>(at)
  modelPut(r.flags | (r.pings << 8) | (r.sessions << 16))
  if (has(r, HAS_CLOCK)) modelPut(elapsed() - r.clockAt <= <u64>RECENT_TICKS ? 1 : 0)
  if (has(r, MARKED)) modelPut(r.markSn)
}
`,
}

/**
 * Smaller tables: the model handles one datagram at a time, and copies the engine at every step.
 * @type {readonly { file: string, find: string, put: string }[]}
 */
export const sizes = [
  { file: 'abi.ts', find: 'RX_SLOTS: u32 = 128\n', put: 'RX_SLOTS: u32 = 4\n' },
  { file: 'abi.ts', find: 'TX_SLOTS: u32 = 64\n', put: 'TX_SLOTS: u32 = 4\n' },
  { file: 'abi.ts', find: 'ENTROPY_BYTES: u32 = 65536\n', put: 'ENTROPY_BYTES: u32 = 1024\n' },
  { file: 'abi.ts', find: 'IO_BYTES: u32 = 65536\n', put: 'IO_BYTES: u32 = 64\n' },
  { file: 'memory/buddy.ts', find: 'GROW_PAGES: u32 = 8\n', put: 'GROW_PAGES: u32 = 1\n' },
]

/**
 * @typedef {object} Mutant a defect planted into the engine
 * @property {string} name
 * @property {string} violation a part of the violation's message
 * @property {string} scenario in which it is found
 * @property {'full'} [bounds] default: those of the quick scenarios
 * @property {string} file of assembly/
 * @property {string} find text that occurs once
 * @property {string} put its replacement; `BAD` is true while the defect is selected
 */

/** Mutants are numbered from 1. @type {readonly Mutant[]} */
export const mutants = [
  {
    name: 'end overtakes data: bytes are dropped once the end is in hand',
    violation: 'EOF for stream 2 of the server after 0 of 1 bytes',
    scenario: 'plain, slow reader',
    file: 'session/stream.ts',
    find: 'if (s.tcp == TCP_GONE || has(s, EOF_RECEIVED)) {\n    const n',
    put: 'if (s.tcp == TCP_GONE || has(s, EOF_RECEIVED) || (BAD && holdsEof(s))) {\n    const n',
  },
  {
    name: 'acknowledged before stored: a segment ahead of a hole is acknowledged and dropped',
    violation: 'is reset without cause',
    scenario: 'plain, duplicate',
    bounds: 'full',
    file: 'kcp/input.ts',
    find: '  const hadHole = c.rcvTop != c.rcvNxt\n',
    put: `  const hadHole = c.rcvTop != c.rcvNxt
  if (BAD && early > 0) {
    queueAck(c, sn, ts, true, now)
    return 0
  }
`,
  },
  {
    name: 'no linger: a session whose directions ended is dropped at once',
    violation: 'is reset without cause',
    scenario: 'plain, loss',
    file: 'session/timeouts.ts',
    find: '  if (s.state == CONNECT) return remaining(s.created, OPEN_LIMIT_TICKS, now)\n',
    put: `  if (s.state == CONNECT) return remaining(s.created, OPEN_LIMIT_TICKS, now)
  if (BAD && s.state == LINGER) return 0
`,
  },
  {
    name: 'no TIME_WAIT: a session that ended is forgotten',
    violation: 'is dialled twice',
    scenario: 'plain, late',
    file: 'session/tombstones.ts',
    find: '  if (count >= MAX_TOMBSTONES) dropOldest()\n  if (!ensureSlot()) return\n',
    put: '  if (BAD) return\n  if (count >= MAX_TOMBSTONES) dropOldest()\n  if (!ensureSlot()) return\n',
  },
  {
    name: 'no half-close: the end of one direction ends both',
    violation: 'which has not ended',
    scenario: 'plain, loss',
    file: 'session/stream.ts',
    find: '    if (has(s, EOF_SENT)) detach(s)\n    else queueEvent(s, EVENT_EOF)\n',
    put: '    if (has(s, EOF_SENT) || BAD) detach(s)\n    else queueEvent(s, EVENT_EOF)\n',
  },
  {
    name: 'clean end faked: a session that breaks is reported as closed',
    violation: 'whose other side has not ended',
    scenario: 'plain, restart of the client',
    file: 'session/stream.ts',
    find: '    queueLastEvent(s, EVENT_ABORT, reason)\n',
    put: '    queueLastEvent(s, BAD ? EVENT_DETACH : EVENT_ABORT, reason)\n',
  },
  {
    name: 'first flight not confirmed: a restarted server dials for a conversation that is over',
    violation: 'is dialled again by a restarted server',
    scenario: 'sealed, restart of the server, late',
    file: 'endpoint/open.ts',
    find: '  if (!isRecentFlight(remote, s.conv, at, len)) {',
    put: '  if (!BAD && !isRecentFlight(remote, s.conv, at, len)) {',
  },
  {
    name: 'no migration: datagrams from a new address are dropped',
    violation: 'is reset without cause',
    scenario: 'sealed, migration',
    file: 'endpoint/open.ts',
    find: '      if (isMidway) return onOtherAddress(known, address, now) ? known : null\n',
    put: '      if (BAD) return null\n      if (isMidway) return onOtherAddress(known, address, now) ? known : null\n',
  },
  {
    name: 'half move: a session that moved still sends to the old address',
    violation: 'is reset without cause',
    scenario: 'sealed, migration',
    bounds: 'full',
    file: 'endpoint/migration.ts',
    find: '  if (s.remote) moveRemote(s, address, answered)\n  rekey(s, address)\n',
    put: '  if (s.remote) moveRemote(s, address, answered)\n  if (!BAD) rekey(s, address)\n',
  },
  {
    name: 'leak: bytes that nobody read are not given back',
    violation: 'bytes more than after a session',
    scenario: 'plain, loss',
    file: 'session/stream.ts',
    find: '  closeReceiveBuffer(s)\n  closeAcks(s)\n  closeRecovery(s)\n',
    put: '  if (!BAD) closeReceiveBuffer(s)\n  closeAcks(s)\n  closeRecovery(s)\n',
  },
  {
    name: 'zombie: a session whose directions ended never leaves',
    violation: 'no end after',
    scenario: 'plain, loss',
    file: 'session/timeouts.ts',
    find: '  if (isInFlight(s)) return remaining(',
    put: '  if (BAD && s.state == LINGER) return NEVER\n  if (isInFlight(s)) return remaining(',
  },
  {
    name: 'read twice: a byte that was read stays in the buffer',
    violation: 'in the place of',
    scenario: 'plain, slow reader',
    file: 'session/message.ts',
    find: '  let taken: u32 = 0\n  while (taken < bytes && hasPayload(s)) {',
    put: '  let taken: u32 = 0\n  if (BAD && bytes > 1) bytes--\n  while (taken < bytes && hasPayload(s)) {',
  },
]
