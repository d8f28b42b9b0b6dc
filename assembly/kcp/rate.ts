/*
 * Delivery: how many segments arrived at the peer, and the rate samples that follow (delivery rate estimation as in
 * BBR).
 *
 * Every transmission remembers how much was delivered when it left; its ACK then tells how much was delivered
 * meanwhile. The sample of a datagram is that of its segment sent last.
 */
import { Ticks } from '../units'
import { DeliveryRate } from './conversation'
import { COPIES, DELIVERED, DELIVERED_AT, FIRST_SENT_AT, TS } from './send_window'

/** Notes in `entry` what is known when it leaves at `now`. To be called before it is marked sent. */
export function onTransmit(c: DeliveryRate, entry: usize, now: Ticks): void {
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
 * A segment arrived. `known`: an ACK told when this transmission was sent; else una told of it, which says nothing of
 * time.
 */
export function onDelivered(c: DeliveryRate, entry: usize, known: bool, now: Ticks): void {
  c.delivered += 1 + <u32>load<u8>(entry, COPIES)
  c.deliveredAt = now
  if (!known) return
  const before = load<u32>(entry, DELIVERED)
  const sentAt = load<u32>(entry, TS)
  if (c.hasSample && <i32>(before - c.sampleDelivered) < 0) return
  c.hasSample = 1
  c.sampleDelivered = before
  c.sampleDeliveredAt = load<u32>(entry, DELIVERED_AT)
  c.sampleFirstSentAt = load<u32>(entry, FIRST_SENT_AT)
  c.sampleSentAt = sentAt
  c.firstSentAt = sentAt
}

/** Ticks over which the sample's segments were delivered: the longer of sending and acknowledging them. */
export function sampleInterval(c: DeliveryRate): Ticks {
  return max(c.deliveredAt - c.sampleDeliveredAt, c.sampleSentAt - c.sampleFirstSentAt)
}

/** The sender has nothing (more) to send: samples of what is in flight now only tell a lower bound. */
export function onAppLimited(c: DeliveryRate): void {
  c.appLimitedUntil = c.delivered + c.flight + 1
}

/** True while samples only tell a lower bound. */
export function isAppLimited(c: DeliveryRate): bool {
  return <i32>(c.appLimitedUntil - c.delivered) > 0
}
