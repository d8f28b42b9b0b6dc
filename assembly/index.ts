/* The exports of the module and nothing else: see docs/abi.md. */
import {
  ABI_VERSION,
  CAPABILITY_FIND,
  CAPABILITY_MEASURE,
  CAPABILITY_OBFS,
  CAPABILITY_PROBE,
  CAPABILITY_VALIDATION,
  E_ARGUMENT,
  E_HANDLE,
  E_STATE,
  ENTROPY_BYTES,
  EVENT_SLOTS,
  IO_BYTES,
  KEY_NUMBERS,
  MODE_CLIENT,
  MODE_SERVER,
  NO_STREAM,
  OK,
  RX_SLOTS,
  SPAN_SLOTS,
  TX_SLOTS,
} from './abi'
import { latestTime } from './clock'
import { localAddress, punched, rendezvousServer, serviceId } from './control/rendezvous'
import { config } from './endpoint/config'
import {
  checkTimers,
  configure as configureEndpoint,
  isMode,
  isReady,
  refreshGauges,
  renewNonce,
  timersDeadline,
} from './endpoint/endpoint'
import { pingAddress, pongs, takePongs } from './endpoint/host_pings'
import {
  acceptContext,
  configureObfs,
  contextInfo,
  describeContext,
  dialContext,
  releaseContext,
  takeEnded,
} from './endpoint/obfs'
import { endKey, movePath, moveSessions, openEcho, openStream, probeSessions } from './endpoint/open'
import { peer, probePath, probePeer, takeOtherRendezvous, takePeer, takeRendezvous, wakePeer } from './endpoint/peer'
import { receive } from './endpoint/receive'
import { removeDrained, reschedule, sessionsSlack } from './endpoint/schedule'
import { describeSession, describeTombstone, info } from './endpoint/session_info'
import { transmit } from './endpoint/transmit'
import { receiveDelay } from './kcp/bulk'
import { setHostBytes } from './memory/slab'
import { contextSlots } from './obfs/context'
import { packets, pending, receivePackets, SLOTS } from './obfs/receive'
import { block } from './obfs/settings'
import { control, outgoing, takeControls, transmitPackets } from './obfs/transmit'
import { rx, tx } from './packet/datagram'
import { entropy, fillEntropy } from './packet/entropy'
import { findKey, keyAge, keys, setKey } from './packet/keys'
import { secret } from './packet/nonce'
import { events, takeEvents } from './session/events'
import { spans } from './session/message'
import { ALL_PARTS, shareRates } from './session/rate'
import { Session, TCP_DIALING, TCP_GONE } from './session/session'
import { abort, commit, connected, consume, limitUnsent, peek, reserve, resetSession, shutdown } from './session/stream'
import { sessionAt, sessionOf, slotsInUse } from './session/table'
import { tombstoneAt, tombstoneCount } from './session/tombstones'
import { counters } from './stats'

/** So much the host may hold in each direction. */
const MAX_HOST_BYTES: u32 = 1 << 30

/** The host's own: the engine never looks at it. */
const io: usize = memory.data(IO_BYTES, 8)

export function abi_version(): i32 {
  return ABI_VERSION
}

export function capabilities(): u32 {
  return CAPABILITY_OBFS | CAPABILITY_VALIDATION | CAPABILITY_FIND | CAPABILITY_PROBE | CAPABILITY_MEASURE
}

export function config_ptr(): usize {
  return config
}

export function entropy_ptr(): usize {
  return entropy
}

export function entropy_capacity(): u32 {
  return ENTROPY_BYTES
}

export function secret_ptr(): usize {
  return secret
}

export function key_ptr(): usize {
  return keys
}

export function set_key(number: u32, now: u32): i32 {
  if (!isReady(now)) return E_STATE
  return setKey(number) ? OK : E_ARGUMENT
}

export function find_key(ptr: usize): i32 {
  return findKey(ptr)
}

export function key_age(number: u32): i32 {
  return keyAge(number)
}

export function end_key(number: u32, now: u32): i32 {
  if (number >= KEY_NUMBERS) return E_ARGUMENT
  return isReady(now) ? endKey(number, now) : E_STATE
}

export function rx_ptr(): usize {
  return rx
}

export function rx_slots(): u32 {
  return RX_SLOTS
}

export function tx_ptr(): usize {
  return tx
}

export function tx_slots(): u32 {
  return TX_SLOTS
}

export function events_ptr(): usize {
  return events
}

export function event_slots(): u32 {
  return EVENT_SLOTS
}

export function io_ptr(): usize {
  return io
}

export function io_capacity(): u32 {
  return IO_BYTES
}

export function spans_ptr(): usize {
  return spans
}

export function span_slots(): u32 {
  return SPAN_SLOTS
}

export function peer_ptr(): usize {
  return peer
}

export function stats_ptr(): usize {
  return counters
}

export function info_ptr(): usize {
  return info
}

export function configure(now: u32): i32 {
  return configureEndpoint(now)
}

export function entropy_filled(n: u32): i32 {
  if (n > ENTROPY_BYTES) return E_ARGUMENT
  fillEntropy(n)
  return OK
}

export function set_peer(now: u32): i32 {
  if (!isReady(now)) return E_STATE
  if (takePeer(now)) moveSessions(now)
  return OK
}

export function rendezvous_ptr(): usize {
  return rendezvousServer
}

export function local_ptr(): usize {
  return localAddress
}

export function service_ptr(): usize {
  return serviceId
}

export function pongs_ptr(): usize {
  return pongs
}

export function punched_ptr(): usize {
  return punched
}

export function set_rendezvous(idBytes: u32, now: u32): i32 {
  return isReady(now) ? takeRendezvous(idBytes, now) : E_STATE
}

export function add_rendezvous(now: u32): i32 {
  return isReady(now) ? takeOtherRendezvous() : E_STATE
}

export function probe_path(port: u32, now: u32): i32 {
  return isReady(now) ? probePath(port, now) : E_STATE
}

export function path_moved(now: u32): i32 {
  if (!isReady(now)) return E_STATE
  movePath(now)
  return OK
}

export function ping_peer(now: u32): i32 {
  if (!isReady(now) || !isMode(MODE_CLIENT)) return E_STATE
  return probePeer(now)
}

export function ping_address(bytes: u32, now: u32): i32 {
  return isReady(now) ? pingAddress(peer, bytes, now) : E_STATE
}

export function poll_pongs(): u32 {
  return takePongs()
}

export function probe_sessions(now: u32): i32 {
  if (!isReady(now)) return E_STATE
  wakePeer(now)
  probeSessions(now)
  return OK
}

export function renew_nonce(): i32 {
  return renewNonce()
}

export function handle_datagrams(count: u32, now: u32): i32 {
  return isReady(now) ? receive(count, now) : E_STATE
}

export function handle_timeout(now: u32): i32 {
  if (!isReady(now)) return E_STATE
  checkTimers(now)
  return OK
}

export function next_timeout(now: u32): i32 {
  return isReady(now) ? timersDeadline(now) : -1
}

export function timeout_slack(now: u32): i32 {
  return isReady(now) ? sessionsSlack(now) : E_STATE
}

export function receive_delay(now: u32): i32 {
  return isReady(now) ? receiveDelay(now) : E_STATE
}

export function refresh_gauges(now: u32): i32 {
  if (!isReady(now)) return E_STATE
  refreshGauges(now)
  return OK
}

export function poll_transmit(max: u32, now: u32): i32 {
  return isReady(now) ? transmit(max, now) : E_STATE
}

export function poll_events(): u32 {
  const n = takeEvents()
  removeDrained(latestTime())
  return n
}

export function stream_open(now: u32): i32 {
  return isReady(now) && isMode(MODE_CLIENT) ? openStream(now) : E_STATE
}

/** The session of a handle that the host still holds. */
function stream(handle: u32): Session | null {
  const s = sessionOf(handle)
  return s && s.tcp != TCP_GONE ? s : null
}

export function stream_connected(handle: u32, ok: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s || s.tcp != TCP_DIALING) return E_HANDLE
  connected(s, ok != 0, now)
  reschedule(s, now)
  return OK
}

export function stream_reserve(handle: u32, want: u32): i32 {
  const s = stream(handle)
  return s ? reserve(s, want) : E_HANDLE
}

export function stream_limit_unsent(handle: u32, segments: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  limitUnsent(s, segments)
  return OK
}

export function stream_commit(handle: u32, n: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  if (!commit(s, n, now)) return E_ARGUMENT
  reschedule(s, now)
  return OK
}

export function stream_peek(handle: u32): i32 {
  const s = stream(handle)
  return s ? peek(s) : E_HANDLE
}

export function stream_consume(handle: u32, n: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  consume(s, n, now)
  reschedule(s, now)
  return OK
}

export function stream_shutdown(handle: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  shutdown(s, now)
  reschedule(s, now)
  return OK
}

export function stream_abort(handle: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  abort(s, now)
  reschedule(s, now)
  return OK
}

export function stream_reset(handle: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  resetSession(s)
  reschedule(s, now)
  return OK
}

export function echo_open(bytes: u32, now: u32): i32 {
  return isReady(now) && isMode(MODE_CLIENT) ? openEcho(bytes, now) : E_STATE
}

export function set_host_bytes(toTcp: u32, fromTcp: u32): i32 {
  if (toTcp > MAX_HOST_BYTES || fromTcp > MAX_HOST_BYTES) return E_ARGUMENT
  setHostBytes(toTcp, fromTcp)
  return OK
}

export function share_rate(upParts: u32, downParts: u32, now: u32): i32 {
  if (upParts > ALL_PARTS || downParts > ALL_PARTS) return E_ARGUMENT
  if (!isReady(now)) return E_STATE
  shareRates(upParts, downParts, now)
  return OK
}

export function session_slots(): u32 {
  return slotsInUse() + tombstoneCount()
}

export function session_info(slot: u32, now: u32): i32 {
  if (slot >= slotsInUse()) {
    const t = tombstoneAt(slot - slotsInUse())
    if (!t) return 0
    describeTombstone(t)
    return NO_STREAM
  }
  const s = sessionAt(slot)
  if (!s) return 0
  describeSession(s, now)
  return s.handle
}

export function session_find(handle: u32, now: u32): i32 {
  const s = stream(handle)
  if (!s) return E_HANDLE
  describeSession(s, now)
  return OK
}

export function obfs_ptr(): usize {
  return block
}

export function obfs_slots(): u32 {
  return SLOTS
}

export function obfs_rx_ptr(): usize {
  return packets
}

export function obfs_early_ptr(): usize {
  return pending
}

export function obfs_tx_ptr(): usize {
  return outgoing
}

export function obfs_control_ptr(): usize {
  return control
}

export function obfs_info_ptr(): usize {
  return contextInfo
}

export function obfs_configure(now: u32): i32 {
  return isReady(now) ? configureObfs(isMode(MODE_SERVER)) : E_STATE
}

export function obfs_accept(now: u32): i32 {
  return isReady(now) ? acceptContext(now) : E_STATE
}

export function obfs_dial(now: u32): i32 {
  return isReady(now) ? dialContext(now) : E_STATE
}

export function obfs_release(id: u32, now: u32): i32 {
  return isReady(now) ? releaseContext(id, now) : E_STATE
}

export function obfs_ended(): u32 {
  return takeEnded()
}

export function obfs_handle_packets(count: u32, now: u32): i32 {
  return isReady(now) ? receivePackets(count) : E_STATE
}

export function obfs_transmit(count: u32, now: u32): i32 {
  return isReady(now) ? transmitPackets(count) : E_STATE
}

export function obfs_control(): u32 {
  return takeControls()
}

export function obfs_context_slots(): u32 {
  return contextSlots()
}

export function obfs_context_info(slot: u32): u32 {
  return describeContext(slot)
}
