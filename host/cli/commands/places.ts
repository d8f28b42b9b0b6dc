/** Addresses as options of `init` and `import` give them, and free ports. */

import { bindsAll, randomPort } from '../../config/generate.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { ConfigError, quote } from '../../errors.ts'
import { BIND_PORTS_MAX, type HostPort, isLoopbackHost, parseHostPort } from '../../net/address.ts'
import { isUnix, parseUnix } from '../../net/unix-path.ts'
import type { Runtime } from '../../runtime.ts'
import { CommandError } from './command.ts'

export const LOOPBACK = '127.0.0.1'
/** Attempts to find a free port for a monitoring server. */
const PORT_TRIES = 32

/**
 * `host:port` of a remote endpoint, or of a server `host:first-last`.
 * @param port where there is none
 * @throws ConfigError
 */
export function readMeeting(text: string, port: number, isServer: boolean): HostPort {
  const whole = /^[^:]+$|\]$/.test(text) ? `${text}:${port}` : text
  const meeting = parseHostPort('', whole, 'connect')
  if (meeting.range !== undefined && !isServer)
    throw new ConfigError('', quote(text), 'a rendezvous server has one port')
  if (meeting.range !== undefined && isLoopbackHost(meeting.host) && !bindsAll(meeting)) {
    const reason = `at most ${BIND_PORTS_MAX} ports on this machine: the firewall redirects only what comes from others`
    throw new ConfigError('', quote(text), reason)
  }
  if (meeting.port === 0) throw new ConfigError('', quote(text), 'the port must not be 0')
  return meeting
}

/**
 * The config value for `host:port`, or for a bare port on the loopback address; for TCP also a Unix socket or a proxy.
 * @throws ConfigError
 */
export function readLocal(text: string, role: 'bind' | 'connect', isUdp = false): string {
  if (isUnix(text) && !isUdp) {
    parseUnix('', text)
    return text
  }
  if (role === 'connect' && isProxy(text) && !isUdp) return text
  const whole = /^\d+$/.test(text) ? `${LOOPBACK}:${text}` : text
  if (parseHostPort('', whole, role).port === 0) throw new ConfigError('', quote(text), 'the port must not be 0')
  return whole
}

/** A TCP port that is currently free on this machine. */
export async function freePort(runtime: Runtime, taken: ReadonlySet<number>): Promise<number> {
  for (let tries = 0; tries < PORT_TRIES; tries += 1) {
    const port = randomPort()
    if (taken.has(port)) continue
    const address = { family: 4, address: LOOPBACK, port, scope: 0 } as const
    try {
      const options = { nodelay: true, keepalive: false }
      const listener = await runtime.listenTcp(
        address,
        options,
        () => null,
        () => {},
      )
      listener.close()
      return port
    } catch {
      // in use
    }
  }
  throw new CommandError('no free TCP port found for the monitoring server')
}
