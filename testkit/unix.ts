/** Unix sockets for tests: a folder for their files, targets that listen at one, applications that connect to one. */
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { TcpEnd } from './tcp.ts'

/** A new folder; `at` is the path of a file in it. */
export function socketFolder(): { at(name: string): string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'kcptun-unix-'))
  return { at: (name) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** Listens at a path and passes each connection to `serve`. */
export async function listenAt(
  path: string,
  serve: (end: TcpEnd) => void,
  backlog = 511,
): Promise<{ close(): Promise<void> }> {
  const ends = new Set<TcpEnd>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const end = new TcpEnd(socket)
    ends.add(end)
    serve(end)
  })
  await new Promise<void>((done, fail) => {
    server.once('error', fail)
    server.listen({ path, backlog }, done)
  })
  return {
    close: () =>
      new Promise((done) => {
        for (const end of ends) end.destroy()
        server.close(() => done())
      }),
  }
}

/** Connects to a path. */
export function dialAt(path: string): Promise<TcpEnd> {
  return new Promise((done, fail) => {
    const socket = connect({ path, allowHalfOpen: true })
    const end = new TcpEnd(socket)
    socket.once('error', fail)
    socket.once('connect', () => done(end))
  })
}
