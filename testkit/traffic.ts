/**
 * Complete transfers through a tunnel, verified to the last byte at both ends. Every pair of programs must pass them.
 *
 * kcptun-libev forwards nothing from its TCP side after it received EOF (protocol.md 6.5): only there, the end of the
 * reverse direction is not awaited.
 */
import * as assert from 'uvu/assert'
import type { Target, TargetOptions, TcpEnd } from './tcp.ts'
import { digest, listen, patternBytes, patternDigest } from './tcp.ts'
import type { Tunnel as WholeTunnel } from './tunnel.ts'
import { waitFor, within } from './wait.ts'

/** Time limit of a transfer, long enough for a loaded machine and a lossy link. */
const TRANSFER_TIMEOUT_MS = 60_000

/** The part of a tunnel that a transfer uses. */
export type Tunnel = Pick<WholeTunnel, 'server' | 'client' | 'dial'>

/** A target whose behaviour is set before each connection. */
export interface ScriptedTarget extends Target {
  /**
   * Sets the behaviour of subsequent connections.
   * @returns the next connection
   */
  serve(behaviour: (end: TcpEnd) => void): Promise<TcpEnd>
}

export async function scriptedTarget(options?: TargetOptions): Promise<ScriptedTarget> {
  let current: (end: TcpEnd) => void = ({ socket }) => socket.destroy()
  const target = await listen((end) => current(end), options)
  return {
    ...target,
    serve(behaviour) {
      current = behaviour
      return target.connection(target.connections.length)
    },
  }
}

/** Sends FIN when the peer does. */
const endTogether = ({ socket }: TcpEnd): void => void socket.once('end', () => socket.end())

async function assertArrived(what: string, end: TcpEnd, size: number, seed: number): Promise<void> {
  const ending = await within(`${what} (${size} bytes)`, TRANSFER_TIMEOUT_MS, end.ending).catch((error: Error) => {
    throw new Error(`${error.message}; ${end.received} bytes received`)
  })
  assert.is(ending.bytes, size, `${what}: number of bytes (ending: ${ending.kind} ${ending.code ?? ''})`)
  assert.is(ending.sha256, patternDigest(size, seed), `${what}: SHA-256`)
  assert.is(ending.kind, 'fin', `${what}: a clean end`)
}

/** The app sends everything and FIN; the target receives it all with a clean end, and closes too. */
export async function upload(tunnel: Tunnel, target: ScriptedTarget, size: number, seed: number): Promise<void> {
  const accepted = target.serve(endTogether)
  const app = await tunnel.dial()
  await app.pour(size, seed)
  app.finish()
  const end = await within('the target to be dialled', TRANSFER_TIMEOUT_MS, accepted)
  await assertArrived('upload', end, size, seed)
  if (tunnel.server.program !== 'libev') await assertArrived('end of the reverse direction', app, 0, seed)
  app.destroy()
}

/** The target sends everything and FIN; the app receives it all with a clean end, and closes too. */
export async function download(tunnel: Tunnel, target: ScriptedTarget, size: number, seed: number): Promise<void> {
  const accepted = target.serve((end) => void end.pour(size, seed).then(() => end.finish()))
  const app = await tunnel.dial()
  await assertArrived('download', app, size, seed)
  app.finish()
  const end = await within('the target to be dialled', TRANSFER_TIMEOUT_MS, accepted)
  if (tunnel.client.program !== 'libev') await assertArrived('end of the forward direction', end, 0, seed)
  end.destroy()
}

/** The target echoes everything; then both ends close, the app first. */
export async function echo(tunnel: Tunnel, target: ScriptedTarget, size: number, seed: number): Promise<void> {
  const accepted = target.serve((end) => {
    end.socket.on('data', (chunk: Buffer) => end.socket.write(chunk))
    endTogether(end)
  })
  const app = await tunnel.dial({ keep: size })
  const poured = app.pour(size, seed)
  await waitFor(
    'all bytes are echoed',
    () => app.ended || app.received >= size,
    TRANSFER_TIMEOUT_MS,
    () => `${app.received} of ${size} bytes`,
  )
  await poured
  assert.is(digest(app.bytes()), digest(patternBytes(size, seed)), 'echo: SHA-256')
  app.finish()
  const end = await accepted
  await assertArrived('echo: forward direction', end, size, seed)
  if (tunnel.server.program !== 'libev') await assertArrived('echo: reverse direction', app, size, seed)
  app.destroy()
}

/** The app sends a request and FIN; the target answers only after that FIN. */
export async function answerAfterEnd(
  tunnel: Tunnel,
  target: ScriptedTarget,
  size: number,
  seed: number,
): Promise<void> {
  const accepted = target.serve((end) =>
    end.socket.once('end', () => void end.pour(size, seed).then(() => end.finish())),
  )
  const app = await tunnel.dial()
  await app.pour(1000, seed + 1)
  app.finish()
  const end = await within('the target to be dialled', TRANSFER_TIMEOUT_MS, accepted)
  await assertArrived('request', end, 1000, seed + 1)
  await assertArrived('answer after the end of the request', app, size, seed)
}

/** The target sends a greeting and FIN; the app uploads only after that FIN. */
export async function uploadAfterEnd(
  tunnel: Tunnel,
  target: ScriptedTarget,
  size: number,
  seed: number,
): Promise<void> {
  const accepted = target.serve((end) => void end.pour(1000, seed + 1).then(() => end.finish()))
  const app = await tunnel.dial()
  await assertArrived('greeting', app, 1000, seed + 1)
  await app.pour(size, seed)
  app.finish()
  const end = await within('the target to be dialled', TRANSFER_TIMEOUT_MS, accepted)
  await assertArrived('upload after the end of the greeting', end, size, seed)
}
