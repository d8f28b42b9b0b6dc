/*
 * Types of the engine's numbers. They are aliases of u32 and u64, for readers: the compiler does not distinguish them.
 */

/** A time on the engine's clock, or a duration, in ticks of 1/8 ms; times wrap. */
export type Ticks = u32
/** Ticks since the endpoint started, without wrap. */
export type ElapsedTicks = u64
/** A duration in a configuration value. */
export type Milliseconds = u32
/** A time in seconds since the endpoint started, or a duration. */
export type Seconds = u32
/** Sequence number of a segment; wraps. */
export type Sn = u32
/** Timestamp of a segment: the sender's clock, echoed by the ACK; wraps. */
export type Ts = u32
/** Conversation number; 0 is control messages. */
export type Conv = u32
