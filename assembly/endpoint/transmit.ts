/*
 * Datagrams out: control messages first, then sessions with output in turn.
 */
import { E_ENTROPY, TX_SLOTS } from '../abi'
import { buildControl, receiver } from '../control/control'
import { noteSent } from '../control/keepalive'
import { isControlWaiting } from '../control/queue'
import { kcpMtu } from '../kcp/conversation'
import { buildDatagram, built, hasOutput } from '../kcp/output'
import { canSeal, describeTx, txBlock } from '../packet/datagram'
import { addressOf } from '../session/session'
import { add, count, KCP_SENT_BYTES, PKT_SENT, PKT_SENT_BYTES } from '../stats'
import { packetOverhead } from './obfs'
import { dequeueReady, hasReady, isLive, readySession } from './schedule'

/** Datagrams a session may send before the next one has its turn. */
const TURN: u32 = 16

/** Fills up to `limit` transmit descriptors; their number, or E_ENTROPY. */
export function transmit(limit: u32, now: u32): i32 {
  const slots = min(limit, TX_SLOTS)
  let n: u32 = 0
  let turn: u32 = 0
  while (n < slots && (isControlWaiting() || hasReady())) {
    if (!canSeal()) return n ? n : E_ENTROPY
    if (isControlWaiting()) {
      const block = txBlock(n)
      const len = buildControl(block)
      noteDatagram(describeTx(n++, block, len, kcpMtu, receiver, 0), receiver, now)
      continue
    }
    const s = readySession()
    const len = isLive(s) && hasOutput(s, now) ? buildDatagram(s, txBlock(n), now) : 0
    if (len) {
      add(KCP_SENT_BYTES, len)
      noteDatagram(describeTx(n++, built, len, kcpMtu, addressOf(s), s.handle), addressOf(s), now)
      turn++
    }
    const more = len != 0 && hasOutput(s, now)
    if (!more || turn >= TURN) {
      dequeueReady(s, more, now)
      turn = 0
    }
  }
  return n
}

function noteDatagram(bytes: u32, address: usize, now: u32): void {
  noteSent(now)
  count(PKT_SENT)
  add(PKT_SENT_BYTES, bytes + packetOverhead(address))
}
