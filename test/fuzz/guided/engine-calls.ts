/** Results of the engine's calls, and calls with numbers that are no handles. */
import { ErrorCode } from '../../../host/engine/core.ts'
import { fault } from '../pattern.ts'
import type { Subject } from '../subject.ts'

/** @throws Fault for a result that is no documented error; `mustWork`: for any but 0 */
export function exactCall(name: string, result: number, mustWork = false): void {
  if (result > 0 || result < ErrorCode.ARGUMENT || (mustWork && result !== 0)) fault(`${name} = ${result}`)
}

/** @returns true if the number is the id of an open context of the obfuscator */
function isContext({ calls }: Subject, id: number): boolean {
  for (let slot = calls.obfs_context_slots() - 1; slot >= 0; slot--)
    if (calls.obfs_context_info(slot) === id) return true
  return false
}

/** Calls one of the functions that take a handle, with any number; never with a handle of a session that is in use. */
export function handleCall(
  subject: Subject,
  which: number,
  handle: number,
  argument: number,
  isLive: (handle: number) => boolean,
): void {
  const { calls, now } = subject
  // a session whose DIAL is yet to come has a handle that nobody knows
  if (isLive(handle) || calls.session_find(handle, now) === 0) return
  const functions = [
    () => calls.stream_connected(handle, argument & 1, now),
    () => calls.stream_limit_unsent(handle, argument),
    () => calls.stream_reserve(handle, argument),
    () => calls.stream_commit(handle, argument, now),
    () => calls.stream_peek(handle),
    () => calls.stream_consume(handle, argument, now),
    () => calls.stream_shutdown(handle, now),
    () => calls.stream_abort(handle, now),
    () => calls.stream_reset(handle, now),
    () => calls.obfs_release(handle, now),
  ] as const
  const known = functions[which % functions.length]
  if (known) {
    const isOpen = isContext(subject, handle)
    const result = known()
    // an id that was guessed
    if (isOpen && result === 0) return
    if (result !== ErrorCode.HANDLE && result !== ErrorCode.ARGUMENT && result !== ErrorCode.STATE)
      fault(`call ${which % functions.length} = ${result} for handle ${handle}, which is not in use`)
  }
}
