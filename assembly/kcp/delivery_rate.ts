/*
 * Delivery rate estimation, as in BBR.
 *
 * Every transmission records how much was delivered when it was sent; its ACK shows how much was delivered since. The
 * sample of a datagram is that of the most recently sent segment it acknowledges.
 */
import { Ticks } from '../units'
import { DeliveryRate } from './conversation'
import { COPIES, DELIVERED, DELIVERED_AT, FIRST_SENT_AT, SENT_AT } from './send_buffer'

/** Records the state of delivery in `entry`, sent at `now`. To be called before `markSent`. */
export function recordDelivery(c: DeliveryRate, entry: usize, now: Ticks): void {
  if (c.flight == 0) c.firstSentAt = c.deliveredAt = now
  store<u32>(entry, c.delivered, DELIVERED)
  store<u32>(entry, c.deliveredAt, DELIVERED_AT)
  store<u32>(entry, c.firstSentAt, FIRST_SENT_AT)
}

/** Starts the sample of a datagram. */
export function startSample(c: DeliveryRate): void {
  c.hasSample = 0
}

/**
 * A segment was delivered.
 * @param known an ACK names the time of this transmission; otherwise una covers it, without a time
 */
export function onDelivered(c: DeliveryRate, entry: usize, known: bool, now: Ticks): void {
  c.delivered += 1 + <u32>load<u8>(entry, COPIES)
  c.deliveredAt = now
  if (!known) return
  const before = load<u32>(entry, DELIVERED)
  const sentAt = load<u32>(entry, SENT_AT)
  if (c.hasSample && <i32>(before - c.sampleDelivered) < 0) return
  c.hasSample = 1
  c.sampleDelivered = before
  c.sampleDeliveredAt = load<u32>(entry, DELIVERED_AT)
  c.sampleFirstSentAt = load<u32>(entry, FIRST_SENT_AT)
  c.sampleSentAt = sentAt
  c.firstSentAt = sentAt
}

/** @returns ticks over which the sample was delivered: the longer of the send and the ACK interval */
export function sampleInterval(c: DeliveryRate): Ticks {
  return max(c.deliveredAt - c.sampleDeliveredAt, c.sampleSentAt - c.sampleFirstSentAt)
}

/** The sender has no more data: samples of what is in flight now are lower bounds. */
export function onAppLimited(c: DeliveryRate): void {
  c.appLimitedUntil = c.delivered + c.flight + 1
}

/** @returns true while samples are lower bounds */
export function isAppLimited(c: DeliveryRate): bool {
  return <i32>(c.appLimitedUntil - c.delivered) > 0
}
