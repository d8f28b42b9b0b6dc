/** The invariants of every state, and those of the final one. */
import type { State, Stream } from './state.ts'
import { Violation } from './state.ts'

type Streams = readonly Readonly<Stream>[]

/** @returns the connections at the other end of the conversation of `stream` */
function peersOf(stream: Readonly<Stream>, streams: Streams): Readonly<Stream>[] {
  return streams.filter(({ side, conv }) => side !== stream.side && conv === stream.conv)
}

const nameOf = ({ side, number }: Readonly<Stream>): string => `stream ${number} of the ${side}`

/** Received bytes are the next ones of a single connection at the other end. @throws Violation */
export function onBytes(stream: Stream, bytes: readonly number[], streams: Streams): void {
  for (const byte of bytes) {
    const source = streams.find(({ number }) => number === byte >> 4)
    const offset = byte & 15
    if (!source || source.side === stream.side || offset >= source.written)
      throw new Violation(`${nameOf(stream)} read a byte that nobody wrote: ${byte}`)
    if (stream.source !== 0 && stream.source !== source.number)
      throw new Violation(`${nameOf(stream)} read bytes of streams ${stream.source} and ${source.number}`)
    if (offset !== stream.got)
      throw new Violation(`${nameOf(stream)} read byte ${offset} of ${nameOf(source)} in the place of ${stream.got}`)
    stream.source = source.number
    stream.got++
  }
}

/** A server dials once for each stream of a client that is not answered yet. @throws Violation */
export function checkDial(stream: Readonly<Stream>, streams: Streams): void {
  const [client] = peersOf(stream, streams)
  if (!client) throw new Violation(`the server dials for conversation ${stream.conv}, which nobody opened`)
  for (const other of streams) {
    if (other === stream || other.side !== 'server' || other.conv !== stream.conv) continue
    if (other.incarnation === stream.incarnation) throw new Violation(`${nameOf(client)} is dialled twice`)
    if (client.got > 0 || client.hasEof || client.end === 'closed')
      throw new Violation(`${nameOf(client)} is dialled again by a restarted server, though it was answered before`)
  }
}

/** A clean end requires that the other side has ended and all its bytes were received. @throws Violation */
export function checkEnd(stream: Readonly<Stream>, streams: Streams, what: 'EOF' | 'DETACH'): void {
  const peers = peersOf(stream, streams).filter(({ number }) => stream.source === 0 || number === stream.source)
  const ended = peers.filter(({ isShut, end }) => isShut || end === 'gave up' || end === 'refused')
  if (ended.length === 0) throw new Violation(`${what} for ${nameOf(stream)}, whose other side has not ended`)
  if (!ended.some(({ written }) => written === stream.got)) {
    const written = ended.map((peer) => peer.written).join(' or ')
    throw new Violation(`${what} for ${nameOf(stream)} after ${stream.got} of ${written} bytes`)
  }
  if (what === 'DETACH' && !stream.isShut) throw new Violation(`DETACH for ${nameOf(stream)}, which has not ended`)
}

/** A reset requires a fault that may cause it. @throws Violation */
export function checkReset(stream: Readonly<Stream>, isDisturbed: boolean, reason: number): void {
  if (!isDisturbed) throw new Violation(`${nameOf(stream)} is reset without cause, reason ${reason}`)
}

/** Finally every connection has ended, and without a fault everything was delivered. @throws Violation */
export function checkQuiet({ streams, isDisturbed }: Pick<State, 'streams' | 'isDisturbed'>): void {
  for (const stream of streams) {
    if (stream.end === undefined) throw new Violation(`${nameOf(stream)} was never ended`)
    if (isDisturbed) continue
    const peers = peersOf(stream, streams)
    if (peers.length !== 1) throw new Violation(`${nameOf(stream)} has ${peers.length} connections at its other end`)
    for (const peer of peers) {
      if (stream.end !== 'closed') throw new Violation(`${nameOf(stream)} ended: ${stream.end}`)
      if (stream.got !== peer.written)
        throw new Violation(`${nameOf(stream)} got ${stream.got} of ${peer.written} bytes`)
    }
  }
}
