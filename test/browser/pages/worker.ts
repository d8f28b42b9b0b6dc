/** A worker that serves the port it is sent. */
import { overMessagePort } from 'kcptun-wasm/browser'
import { serveEcho } from './transfer.ts'

globalThis.onmessage = ({ ports: [port] }) => {
  if (port !== undefined) void serveEcho(overMessagePort(port))
}
