/** Runs in pages and workers: an echo server and a transfer to it, over any transport of the library. */
import {
  type Client,
  createClient,
  createServer,
  type DatagramTransport,
  type Server,
  type WebStream,
} from 'kcptun-wasm/browser'

const PSK = btoa(String.fromCharCode(...new Uint8Array(32).keys()))
/** Most bytes that crypto.getRandomValues fills at once. */
const RANDOM_MAX = 65_536

type Key = { readonly psk: string } | { readonly password: string }

/** Serves streams that return what they get. */
export const serveEcho = (transport: DatagramTransport, key: Key = { psk: PSK }): Promise<Server> =>
  createServer({ ...key, transport }, ({ readable, writable }) => readable.pipeTo(writable))

export const connect = (transport: DatagramTransport, key: Key = { psk: PSK }): Promise<Client<WebStream>> =>
  createClient({ ...key, transport })

const digest = async (bytes: Uint8Array<ArrayBuffer>): Promise<string> =>
  String(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))

/** Sends random bytes through the echo server. @returns how many came back, and whether they are the same */
export async function transfer(
  client: Client<WebStream>,
  length: number,
): Promise<{ length: number; isSame: boolean }> {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i += RANDOM_MAX) crypto.getRandomValues(bytes.subarray(i, i + RANDOM_MAX))
  const { readable, writable, closed } = client.open()
  const writing = new Blob([bytes]).stream().pipeTo(writable)
  const back = new Uint8Array(await new Response(readable).arrayBuffer())
  await writing
  await closed
  return { length: back.length, isSame: (await digest(back)) === (await digest(bytes)) }
}
