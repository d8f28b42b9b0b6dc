/*
 * Timers of sessions: a binary heap of deadlines.
 *
 * Postponing is lazy: when the deadline of a session becomes later, its entry stays where it is, and is moved when its
 * old deadline reaches the top.
 */

import { growRing } from '../memory/ring'
import { Ticks } from '../units'
import { Session } from './session'

const POINTER_SHIFT: u32 = 2
const INITIAL_CAPACITY: u32 = 64
/** Above the maximum number of sessions. */
const MAX_CAPACITY: u32 = 65536

let heap: usize = 0
let capacity: u32 = 0
let size: u32 = 0

/** @returns the session with the earliest deadline, null if there is none */
export function earliest(): Session | null {
  return size ? at(0) : null
}

/**
 * Makes room for `sessions` deadlines. To be called before a session is created: then `wake` cannot fail, and every
 * session has a deadline.
 * @returns false when memory is scarce
 */
export function ensureTimers(sessions: u32): bool {
  if (sessions <= capacity) return true
  const wanted = capacity ? capacity * 2 : INITIAL_CAPACITY
  if (wanted > MAX_CAPACITY) return false
  const larger = growRing(heap, capacity - 1, POINTER_SHIFT, 0, size, wanted, false)
  if (!larger) return false
  heap = larger
  capacity = wanted
  return true
}

/** Sets the deadline of `s` to `time` unless it is earlier. */
export function wake(s: Session, time: Ticks): void {
  if (!s.heapIndex) {
    s.deadline = time
    up(size++, s)
  } else if (<i32>(time - s.deadline) < 0) {
    s.deadline = time
    up(s.heapIndex - 1, s)
  }
}

/** Sets a later deadline for a session in the heap. */
export function postpone(s: Session, time: Ticks): void {
  s.deadline = time
  down(s.heapIndex - 1, s)
}

/** Removes a session. */
export function cancel(s: Session): void {
  if (!s.heapIndex) return
  const i = s.heapIndex - 1
  s.heapIndex = 0
  const last = at(--size)
  if (i == size) return
  if (<i32>(last.deadline - s.deadline) < 0) up(i, last)
  else down(i, last)
}

function at(i: u32): Session {
  return changetype<Session>(load<usize>(heap + ((<usize>i) << POINTER_SHIFT)))
}

function put(i: u32, s: Session): void {
  store<usize>(heap + ((<usize>i) << POINTER_SHIFT), changetype<usize>(s))
  s.heapIndex = i + 1
}

function up(i: u32, s: Session): void {
  while (i > 0) {
    const parent = (i - 1) >> 1
    const p = at(parent)
    if (<i32>(p.deadline - s.deadline) <= 0) break
    put(i, p)
    i = parent
  }
  put(i, s)
}

function down(i: u32, s: Session): void {
  while (true) {
    let child: u32 = 2 * i + 1
    if (child >= size) break
    if (child + 1 < size && <i32>(at(child + 1).deadline - at(child).deadline) < 0) child++
    const c = at(child)
    if (<i32>(c.deadline - s.deadline) >= 0) break
    put(i, c)
    i = child
  }
  put(i, s)
}
