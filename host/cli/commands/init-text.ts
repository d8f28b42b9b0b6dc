/** What `init` prints after writing: how to start the files. */

import { bindsAll, type ServerFile, type Wishes } from '../../config/generate.ts'
import { isProxy } from '../../config/proxy-rules.ts'
import { isLoopbackHost, isWildcardHost, parseHostPort } from '../../net/address.ts'
import { isUnix } from '../../net/unix-path.ts'
import { PROGRAM } from '../../version.ts'
import { shellWord } from './invocation.ts'
import { LOOPBACK } from './places.ts'

/** What was written. */
export interface Setup {
  readonly wishes: Wishes
  /** Files by role; of the servers in the order of `files`. */
  readonly paths: { readonly client: string; readonly servers: readonly string[]; readonly rendezvous: string }
  /** The files of servers; with a rendezvous server they are those of one. */
  readonly files: readonly ServerFile[]
  /** Ports of the monitoring servers of `files`. */
  readonly httpPorts: readonly number[]
  /** Files of users; none: there is one client. */
  readonly clients: readonly string[]
  /** The command that starts this program. */
  readonly self: string
  /** Whether the client is given away as a link. */
  readonly isLinked: boolean
}

export const steps = (lines: readonly string[]): string => lines.map((line) => `    ${line}\n`).join('')

/** What scp calls a host. */
export const scpHost = (host: string): string => shellWord(host.includes(':') ? `[${host}]` : host)

/** The commands that let datagrams in at a server that is reached there. */
export function openings(meeting: Wishes['meeting'], file: string): readonly string[] {
  const { port, range } = meeting
  const isBound = bindsAll(meeting)
  const ports = range === undefined || !isBound ? port : `${range.first}:${range.last}`
  const what = range === undefined || !isBound ? 'this UDP port' : 'these UDP ports'
  const open = `sudo ufw allow ${ports}/udp    # or open ${what} in its firewall`
  if (range === undefined || isBound) return [open]
  const rule = `${PROGRAM} --hop-firewall=${range.first}-${range.last} -c ${file}`
  return [open, `${rule}    # prints the rule by which all these ports lead there; run it as root`]
}

/** The commands for other machines, from a shell here and then from one there. */
function elsewhere(path: string, who: string, hosts: readonly string[], meeting?: Wishes['meeting']): string {
  const one = hosts.length === 1
  const file = shellWord(path.split('/').at(-1) ?? '')
  const copy = steps(hosts.map((host) => `scp ${shellWord(path)} ${scpHost(host)}:`))
  const install = [`npm install -g ${PROGRAM}`]
  const firewall = meeting === undefined ? [] : openings(meeting, file)
  return `${who} ${hosts.join(', ')}. Copy ${one ? 'its' : 'their'} file there:\n\n${copy}\nand ${one ? 'there' : 'at each of them'}:\n\n${steps([...install, ...firewall, `${PROGRAM} -c ${file}`])}`
}

/** How the servers are started. */
function serverParts({ files, paths, self }: Setup): string[] {
  const isLocal = files.every(({ servers }) => servers.every(({ host }) => isLoopbackHost(host)))
  if (isLocal) {
    const lines = paths.servers.map((path) => `${self} -c ${shellWord(path)}`)
    return [`The server${lines.length === 1 ? '' : 's, each in a terminal'}:\n\n${steps(lines)}`]
  }
  return files.map(({ servers }, index) =>
    elsewhere(
      paths.servers[index] ?? '',
      servers.length === 1 ? 'The server is' : 'The servers are',
      servers.map(({ host }) => host),
      servers[0],
    ),
  )
}

/** The line about applications. */
export function usage({ listen, connect, isUdp }: Pick<Wishes, 'listen' | 'connect' | 'isUdp'>): string {
  const { host, port } = isUnix(listen) ? { host: '', port: 0 } : parseHostPort('', listen, 'bind')
  const everywhere = isWildcardHost(host)
  const entrance = everywhere ? `port ${port} of the client` : listen
  const isThere = isUnix(connect) || (!isProxy(connect) && isLoopbackHost(parseHostPort('', connect, 'connect').host))
  const exit = isProxy(connect)
    ? `the targets that they name to the ${connect} proxy of the server`
    : isThere
      ? `${connect} on the server`
      : connect
  const open = everywhere ? ' Any host that can reach this port can use the tunnel.' : ''
  return `Applications that ${isUdp === true ? 'send UDP' : 'connect'} to ${entrance} are forwarded to ${exit}.${open}\n`
}

/** The instructions printed after writing. */
export function instructions(setup: Setup): string {
  const { wishes, paths, files, httpPorts, clients, self, isLinked } = setup
  const { meeting, rendezvous } = wishes
  const local = isLoopbackHost(meeting.host)
  const start = (path: string): string => `\n${steps([`${self} -c ${shellWord(path)}`])}`
  const [server = ''] = paths.servers
  // behind a NAT the server cannot be reached from elsewhere: who gives the client away is there
  const isServer = rendezvous && isLinked && !local
  const wrote = [
    ...(rendezvous ? [paths.rendezvous] : []),
    ...paths.servers,
    ...(clients[0] ? clients : [paths.client]),
  ]
  const parts = [`Wrote ${wrote.join(', ')}. They contain the key${clients[1] ? 's' : ''}: keep them secret.\n`]
  if (!rendezvous) parts.push(...serverParts(setup))
  else if (local) {
    parts.push(`The rendezvous server:\n${start(paths.rendezvous)}`)
    parts.push(`The server:\n${start(server)}`)
  } else {
    parts.push(elsewhere(paths.rendezvous, 'The rendezvous server is', [meeting.host], meeting))
    if (isServer) parts.push(`The server is this machine:\n${start(server)}`)
    else parts.push(elsewhere(server, 'The server is', ['SERVER']))
  }
  if (clients.length > 0) parts.push(userText(clients, paths.servers))
  else if (!isServer) parts.push(`The client is this machine:\n${start(paths.client)}`)
  const dashboards = [
    `http://${LOOPBACK}:${wishes.httpPorts.client}/ (client)`,
    ...httpPorts.map((port, index) => `http://${LOOPBACK}:${port}/ (${files[index]?.name ?? 'server'})`),
  ]
  parts.push(`${usage(wishes)}Dashboards, accessible locally: ${dashboards.join(', ')}
Troubleshooting: ${self} doctor -c ${shellWord(isServer ? server : (clients[0] ?? paths.client))}
`)
  return parts.join('\n')
}

function userText(clients: readonly string[], servers: readonly string[]): string {
  const name = shellWord(clients[0]?.split('/').at(-1) ?? '')
  return `The clients: give each user the file with his name, which contains his key, and no other one; there:

    npm install -g ${PROGRAM}
    ${PROGRAM} -c ${name}

To add or remove a user later, change keys in ${servers.join(', ')} and reload the server (kill -HUP).
`
}
