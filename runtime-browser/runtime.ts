/** The adapter for pages and workers of browsers: time, and no sockets, files or processes. */

import { NotAvailable } from '../host/errors.ts'
import type { Runtime } from '../host/runtime.ts'
import { clock } from './clock.ts'

export const NO_SOCKETS =
  'there are no sockets in a browser: createClient and createServer need the option transport, createTunnel is not available'

/** @throws NotAvailable */
function refuse(): never {
  throw new NotAvailable(NO_SOCKETS)
}

const reject = async (): Promise<never> => refuse()

/** The runtime of this page or worker. */
export function browserRuntime(): Runtime {
  return {
    name: 'browser',
    version: navigator.userAgent,
    clock,
    resolve: reject,
    openUdp: reject,
    listenTcp: reject,
    dialTcp: refuse,
    serveHttp: reject,
    readFile: reject,
    // a page cannot measure it
    cpuTime: () => 0,
    onTerminate() {},
    onReload() {},
    print(stream, text) {
      if (stream === 'stderr') console.error(text)
      else console.log(text)
    },
    exit: refuse,
  }
}
