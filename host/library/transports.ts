/** Transports over the message channels of the web platform. */

import type { DatagramReceiver, DatagramTransport } from './api.ts'

// biome-ignore lint/suspicious/noExplicitAny: what the types of the web platform and of Node have in common
type Listener = (event: any) => void

/** The part of MessagePort and of Worker, in browsers and elsewhere, that is used. */
export interface PortLike {
  postMessage(message: unknown, transfer: never[]): void
  addEventListener(type: string, listener: Listener): void
  removeEventListener(type: string, listener: Listener): void
  start?(): void
  close?(): void
}

/** The part of RTCDataChannel that is used. */
export interface DataChannelLike {
  binaryType: string
  readonly readyState: string
  readonly bufferedAmount: number
  bufferedAmountLowThreshold: number
  send(data: Uint8Array<ArrayBuffer>): void
  addEventListener(type: string, listener: Listener): void
  close(): void
}

/** Bytes in a data channel above which no more are sent until it has sent half of them. */
const BUFFERED_MAX = 262_144
/** SCTP messages up to this size are not fragmented by any browser (RFC 8831, section 6.6). */
const DATA_CHANNEL_BYTES = 1152

/**
 * Datagrams as messages of a MessagePort, between pages, frames and workers. Messages that are no bytes are ignored.
 * A port that is closed at the other end is not noticed everywhere: the peer is then silent.
 */
export function overMessagePort(port: PortLike): DatagramTransport {
  let onMessage: Listener | undefined
  return {
    maxDatagramSize: 1452,
    open(receiver) {
      onMessage = ({ data }: { readonly data: unknown }) => {
        if (data instanceof Uint8Array) receiver.datagram(data)
      }
      port.addEventListener('message', onMessage)
      port.addEventListener('close', () => receiver.close())
      port.start?.()
    },
    send(data) {
      port.postMessage(data.slice(), [])
    },
    close() {
      if (onMessage !== undefined) port.removeEventListener('message', onMessage)
      port.close?.()
    },
  }
}

/**
 * Datagrams as messages of a WebRTC data channel. Create the channel with `ordered: false` and `maxRetransmits: 0`:
 * retransmission is done here.
 */
export function overDataChannel(channel: DataChannelLike): DatagramTransport {
  return {
    maxDatagramSize: DATA_CHANNEL_BYTES,
    async open(receiver) {
      channel.binaryType = 'arraybuffer'
      channel.bufferedAmountLowThreshold = BUFFERED_MAX / 2
      channel.addEventListener('message', ({ data }: { readonly data: unknown }) => {
        if (data instanceof ArrayBuffer) receiver.datagram(new Uint8Array(data))
      })
      channel.addEventListener('bufferedamountlow', () => receiver.writable())
      await opened(channel)
      channel.addEventListener('close', () => receiver.close())
    },
    send(data) {
      channel.send(data.slice())
      return channel.bufferedAmount < BUFFERED_MAX
    },
    close: () => channel.close(),
  }
}

/** Waits until a data channel is open. Rejects if it closes instead. */
function opened(channel: DataChannelLike): Promise<void> {
  if (channel.readyState === 'open') return Promise.resolve()
  return new Promise((resolve, reject) => {
    const fail = (): void => reject(new Error('the data channel closed before it was open'))
    channel.addEventListener('open', () => resolve())
    channel.addEventListener('close', fail)
    if (channel.readyState !== 'connecting') fail()
  })
}

export type { DatagramReceiver, DatagramTransport }
