/*
 * The state of one KCP conversation (protocol.md 5.4): a record in linear memory, made of parts.
 *
 * Each part is a class that extends the part before it, and Conversation extends the last one. So the parts lie one
 * after the other in one record, every field has a fixed offset from the same pointer, and a conversation is passed as
 * any of its parts without a conversion. (A field whose type is a class would be a pointer in AssemblyScript.) A
 * function that takes a part uses that part and those before it. Parts begin and end with their single bytes where
 * those share a word, because a session must fit into 512 bytes.
 */
import { Conv, Sn, Ticks, Ts } from '../units'

/** Lists of sent segments: in flight, ordered by time of transmission; declared lost and waiting for retransmission. */
export const FLIGHT: u32 = 0
export const LOST: u32 = 1
/** Smallest receive window (protocol.md 5.2). */
export const MIN_RCVWND: u32 = 128
/** Assumed window of a peer before its first packet. */
export const INITIAL_RMTWND: u32 = 128
/** Largest window that a header can carry. */
export const MAX_WND: u32 = 65535

/**
 * Segments to send and sent. [sndUna, sndNxt) is in flight, [sndNxt, sndEnd) waits for the window, and
 * [sndEnd, sndReserved) is reserved for the host.
 */
@unmanaged
export class SendBuffer {
  conv: Conv
  sndUna: Sn
  sndNxt: Sn
  sndEnd: Sn
  sndReserved: Sn
  sndRing: usize
  sndMask: u32
  // our window and the peer's, in segments
  sndWnd: u32
  rmtWnd: u32
  // largest payload that the path is known to take, NEVER if nothing is known: that of kcpMtu (see segmentLimit)
  pathMss: u32
  // first and last sn of the lists FLIGHT and LOST, and their lengths
  firstFlight: Sn
  firstLost: Sn
  lastFlight: Sn
  lastLost: Sn
  flight: u32
  lost: u32
  // transmissions of segments that counted as lost
  retransmissions: u32
  // when the peer's window held back a new segment (`wasBlocked`)
  blockedAt: Ticks
  wasBlocked: u8
  // the peer has no memory for what its window promised (see onWins)
  isPeerOutOfMemory: u8
  // client: stream data or its end arrived. ACKs of KEEPALIVEs have another ts from then on: theirs would confirm a
  // replayed first flight at a server that has restarted (confirm.ts)
  hasStream: u8
}

/** Delivery rate estimation (draft-cheng-iccrg-delivery-rate-estimation). */
@unmanaged
export class DeliveryRate extends SendBuffer {
  hasSample: u8
  // segments delivered, when the last was, when the first of those measured was sent
  delivered: u32
  deliveredAt: Ticks
  firstSentAt: Ticks
  appLimitedUntil: u32
  // the rate sample of the datagram being handled
  sampleDelivered: u32
  sampleDeliveredAt: Ticks
  sampleFirstSentAt: Ticks
  sampleSentAt: Ticks
}

/** RFC 6298. */
@unmanaged
export class RttEstimator extends DeliveryRate {
  srtt: Ticks
  rttvar: Ticks
  rto: Ticks
  // the RTT sample of the datagram being handled
  sampleRtt: Ticks
}

@unmanaged
export class CongestionController extends RttEstimator {
  // automatic control: the model and what is shared with other conversations, in blocks of their own; 0 = none
  model: usize
  peerPath: usize
  // the classic window, used if `nc` is 0
  cwnd: u32
  ssthresh: u32
  incr: u32
}

/** Received segments. [rcvRead, rcvNxt) is in order and unread, (rcvNxt, rcvTop) arrived out of order, with holes. */
@unmanaged
export class ReceiveBuffer extends CongestionController {
  rcvRead: Sn
  rcvNxt: Sn
  rcvTop: Sn
  rcvRing: usize
  rcvMask: u32
  rcvWnd: u32
  // right edge of the advertised window
  rcvEdge: Sn
  // hash of the payload with sn 0, 0 before it arrived
  firstHash: u32
  // bytes of the blocks and of the ring
  rcvHeldBytes: u32
  // the segment dropped last for lack of memory; when the peer was informed of one, in units of DROP_UNIT_SHIFT
  dropSn: Sn
  dropAt: u16
  // everything before this batch was read
  isPrompt: u8
  // a segment was dropped since the peer was informed of free memory
  hasDropped: u8
  // window tuning: start of the measurement
  rcvTuneNxt: Sn
  rcvTuneAt: Ticks
}

/** ACKs to send. */
@unmanaged
export class AckQueue extends ReceiveBuffer {
  ackRing: usize
  ackMask: u32
  // numbers of ACKs: the first that may be repeated, the first pending, the next
  ackRepeat: u32
  ackFirst: u32
  ackEnd: u32
  ackDeadline: Ticks
  ackLastSentAt: Ticks
  // of the last 32 PUSHes, one bit each: ts differs from the one before; ts is slightly later
  tsChanges: u32
  tsSteps: u32
  tsLast: Ts
  // the ACK taken last
  lastSn: Sn
  lastTs: Ts
  // client: newest ts of a PUSH of the server that acknowledged something, 0 = there was none
  ackingTs: Ts
  ackAtOnce: u8
  // the receive window is not tuned; here to fill a gap
  isRcvWndFixed: u8
  // since when una is below what the peer has acknowledged, in units of RENEGED_UNIT_SHIFT; 0 = it is not
  renegedAt: u16
  // client: newest ts of a PUSH of the server, in units of PEER_CLOCK_SHIFT, with PEER_CLOCK_KNOWN; or one of the others
  peerClock: u16
}

export const PEER_CLOCK_SHIFT: u32 = 17
/** `peerClock`: a server does not check it; no PUSH yet; known. */
export const PEER_CLOCK_IGNORED: u16 = 0
export const PEER_CLOCK_UNKNOWN: u16 = 1
export const PEER_CLOCK_KNOWN: u16 = 0x8000

/** RACK-TLP (RFC 8985), and the classic rule of `resend`. */
@unmanaged
export class LossDetection extends AckQueue {
  hasRack: u8
  // datagrams joined to others of which nothing is known, sent after the last lone one (endpoint/runs.ts)
  joined: u8
  // the most recently sent transmission that was delivered, and its RTT
  rackSentAt: Ticks
  rackSn: Sn
  rackRtt: Ticks
  // reordering window, in eighths of the minimum RTT, and when it changed
  reoWndMult: u32
  reoWndMultAt: Ticks
  // last transmission or delivery, and probe timeouts since
  lastActivityAt: Ticks
  ptoCount: u32
  // history of ACK datagrams for `resend`
  ackHistory: usize
  ackHistoryCount: u32
  // black hole detection: the segment that is not delivered, and since when
  blackholeSn: Sn
  blackholeAt: Ticks
  // highest una of the peer, and when it arrived first
  peerUna: Sn
  unaAt: Ticks
}

/** Segments that are sent more than once before they are lost: copies of retransmissions, and thin segments. */
@unmanaged
export class Redundancy extends LossDetection {
  copySn: Sn
  copies: u32
  thinSn: Sn
  thinAt: Ticks
}

/** Window probes (WASK, WINS) to send, and the zero-window probe timer. */
@unmanaged
export class WindowProbe extends Redundancy {
  // bits PROBE_ASK, PROBE_TELL, PROBE_DROPPED
  wndProbes: u32
  wndProbeInterval: Ticks
  wndProbeAt: Ticks
}

@unmanaged
export class Conversation extends WindowProbe {
  // unconfirmed session of a server: the transmissions whose ACK would confirm it (confirm.ts); 0 = confirmed
  confirm: usize
  // options of the endpoint when the conversation was opened
  congestionMode: u8
  flushMode: u8
  nodelay: u8
  fastResend: u8
  // the user set `sndwnd`: a hard limit
  isSndWndSet: u8
  // like `joined`, sent before it
  joinedBefore: u8
  // minimum variance of the RTO, and the flush interval of `flush` 0
  intervalTicks: u16
  flushTicks: u16
}

/** Bits of `wndProbes`: WASK; WINS; WINS that reports a segment dropped for lack of memory. */
export const PROBE_ASK: u32 = 1
export const PROBE_TELL: u32 = 2
export const PROBE_DROPPED: u32 = 4

/** @returns segments queued or in flight ("waitsnd") */
export function waitSnd(c: SendBuffer): u32 {
  return c.sndEnd - c.sndUna
}
