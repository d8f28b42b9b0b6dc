/** The functions that tests call in a page. */
import { createClient, createServer, createTunnel, overDataChannel, overMessagePort } from 'kcptun-wasm/browser'
import { connect, serveEcho, transfer } from './transfer.ts'

/** As advised at overDataChannel. */
const UNRELIABLE = { ordered: false, maxRetransmits: 0 }

/** A description with all candidates. */
async function described(connection: RTCPeerConnection): Promise<string> {
  if (connection.iceGatheringState !== 'complete') {
    await new Promise<void>((resolve) => {
      connection.onicegatheringstatechange = () => connection.iceGatheringState === 'complete' && resolve()
    })
  }
  return JSON.stringify(connection.localDescription)
}

const calls = { createClient, createServer, createTunnel }

let connection: RTCPeerConnection
let channel: RTCDataChannel

const functions = {
  /** @returns name and code of what a call of the library rejects with */
  async refusal(name: 'createClient' | 'createServer' | 'createTunnel', options: object): Promise<string> {
    try {
      await calls[name](options as never, () => {})
      return 'none'
    } catch (error) {
      return error instanceof Error && 'code' in error ? `${error.name} ${error.code}: ${error.message}` : String(error)
    }
  },

  /** Over a MessagePort to a worker. */
  async worker(length: number) {
    const { port1, port2 } = new MessageChannel()
    const worker = new Worker('/worker.js', { type: 'module' })
    worker.postMessage(null, [port2])
    const client = await connect(overMessagePort(port1))
    const result = await transfer(client, length)
    await client.close()
    worker.terminate()
    return result
  },

  /** Both ends in this page, with a key that is derived from a password. */
  async password(length: number) {
    const { port1, port2 } = new MessageChannel()
    const key = { password: 'a password' }
    const server = await serveEcho(overMessagePort(port2), key)
    const client = await connect(overMessagePort(port1), key)
    const result = await transfer(client, length)
    await client.close()
    await server.close()
    return result
  },

  /** Offers a data channel. */
  async offer(): Promise<string> {
    connection = new RTCPeerConnection()
    channel = connection.createDataChannel('kcptun', UNRELIABLE)
    await connection.setLocalDescription()
    return described(connection)
  },

  /** Serves on the data channel of an offer. */
  async answer(offer: string): Promise<string> {
    const answering = new RTCPeerConnection()
    answering.ondatachannel = ({ channel: offered }) => void serveEcho(overDataChannel(offered))
    await answering.setRemoteDescription(JSON.parse(offer))
    await answering.setLocalDescription()
    return described(answering)
  },

  /** Transfers over the data channel that was offered, and closes it while a stream is open. */
  async overChannel(answer: string, length: number) {
    await connection.setRemoteDescription(JSON.parse(answer))
    const client = await connect(overDataChannel(channel))
    const result = await transfer(client, length)
    const stats = client.stats()
    const stream = client.open()
    channel.close()
    const error = await stream.closed.catch((reason) => reason.name)
    await client.closed
    return { ...result, ordered: channel.ordered, received: stats.counters['tcp_written_bytes'], error }
  },
}

export type PageFunctions = typeof functions
Object.assign(globalThis, { functions })
