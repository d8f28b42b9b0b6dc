/** A paced transfer that can be disturbed while it runs. */
import * as assert from 'uvu/assert'
import type { TcpEnd } from '../../testkit/tcp.ts'
import { digest, patternBytes } from '../../testkit/tcp.ts'
import { sleep, waitFor, within } from '../../testkit/wait.ts'
import { type Meeting, RECOVERY_MS } from './meeting.ts'

const TRANSFER_BYTES = 3_000_000
/** Chunk size, and the pause after each chunk, so that the transfer is in progress when it is disturbed. */
const CHUNK_BYTES = 30_000
const CHUNK_PAUSE_MS = 20

/** Sends a pattern at a moderate rate, then FIN. `gate` resolves when the bytes from an offset on may be sent. */
async function pourSlowly(end: TcpEnd, bytes: Buffer, gate: (at: number) => Promise<void>): Promise<void> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    await gate(at)
    await end.send(bytes.subarray(at, at + CHUNK_BYTES))
    await sleep(CHUNK_PAUSE_MS)
  }
  end.finish()
}

export type Direction = 'download' | 'upload'

/** A transfer disturbed after each of several equal parts. */
export async function transfer(
  meeting: Meeting,
  direction: Direction,
  seed: number,
  disturbances: (() => void)[],
): Promise<void> {
  const bytes = patternBytes(TRANSFER_BYTES, seed)
  const partBytes = TRANSFER_BYTES / (disturbances.length + 1)
  let done = 0
  // data delayed by one disturbance may arrive at once and finish before the next: half a part later the sender waits
  // for it
  const gate = (at: number): Promise<void> => {
    const wanted = Math.min(Math.floor(at / partBytes - 0.5), disturbances.length)
    return waitFor(`${direction}: disturbance ${wanted}`, () => done >= wanted, RECOVERY_MS)
  }
  const accepted = meeting.target.serve((end) => {
    if (direction === 'download') void pourSlowly(end, bytes, gate).catch(() => end.destroy())
  })
  const app = await meeting.dial()
  if (direction === 'upload') void pourSlowly(app, bytes, gate).catch(() => app.destroy())
  const receiver = direction === 'download' ? app : await within('the target to be dialled', RECOVERY_MS, accepted)
  for (const [index, disturb] of disturbances.entries()) {
    const part = partBytes * (index + 1)
    await waitFor(
      `${direction}: part ${index + 1}`,
      () => receiver.ended || receiver.received >= part,
      RECOVERY_MS,
      () => `${receiver.received} of ${TRANSFER_BYTES} bytes`,
    )
    assert.not.ok(receiver.ended, `${direction}: the connection ended, or the test was too late`)
    disturb()
    done++
  }
  const ending = await within(`${direction}: the end`, RECOVERY_MS, receiver.ending).catch((error: Error) => {
    throw new Error(`${error.message}; ${receiver.received} bytes are there`)
  })
  assert.is(ending.kind, 'fin', `${direction}: a clean end`)
  assert.is(ending.sha256, digest(bytes), `${direction}: SHA-256`)
  app.destroy()
}
