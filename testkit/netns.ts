/**
 * A network of namespaces: sites behind NAT routers, hosts with public addresses, and a host for rendezvous servers.
 * Needs root, ip and nft.
 *
 *     a1  a2            b1
 *      \ /               |
 *   router a          router b       public
 *        \______________|_____________/
 *                      net  (the rendezvous server)
 *
 * Every router masquerades IPv4 and IPv6 and drops unsolicited packets before conntrack confirms them, so that an early
 * datagram of the peer cannot occupy the port of a later mapping: a port-restricted cone NAT, as in home routers. The
 * namespace of the test itself is not changed; processes and sockets run inside the others.
 */
import type { Socket as UdpSocket } from 'node:dgram'
import { Namespace } from './namespace.ts'
import { NetnsAgent } from './netns-agent.ts'
import type { Config, Program, Running, StartOptions } from './process.ts'
import { start } from './process.ts'
import { formatAddress, TcpEnd } from './tcp.ts'
import type { ScriptedTarget } from './traffic.ts'

export type Family = 4 | 6
export const FAMILIES: readonly Family[] = [4, 6]

const worlds = new Set<World>()
process.on('exit', () => {
  for (const world of worlds) world.close()
})

/** See TcpEnd. */
export interface DialOptions {
  readonly rate?: number
  readonly keep?: number
}

/** A host for programs: one namespace with one interface, `eth0`. */
export class Host {
  readonly namespace: Namespace
  readonly addresses: Readonly<Record<Family, string>>
  readonly #gateways: Readonly<Record<Family, string>> | undefined
  #agent: NetnsAgent | undefined
  readonly #sockets: UdpSocket[] = []

  /** @param gateways default routes; absent for a host that is a router itself */
  constructor(namespace: Namespace, addresses: Record<Family, string>, gateways?: Record<Family, string>) {
    this.namespace = namespace
    this.addresses = addresses
    this.#gateways = gateways
  }

  get #talker(): NetnsAgent {
    this.#agent ??= new NetnsAgent(this.namespace.name)
    return this.#agent
  }

  /** `host:port` of a port of this host. */
  at(family: Family, port: number): string {
    return formatAddress(this.addresses[family], port)
  }

  /** Starts a program here, see process.ts. */
  start(program: Program, config: Config, options: StartOptions = {}): Promise<Running> {
    const place = { command: ['ip', 'netns', 'exec', this.namespace.name], get: this.get }
    return start(program, config, { ...options, place })
  }

  /** Body of a GET from here. */
  readonly get = async (url: string): Promise<string> =>
    (await this.#talker.ask({ action: 'get', url })).reply.body ?? ''

  /** Opens a TCP connection from here. */
  async dial(host: string, port: number, options: DialOptions = {}): Promise<TcpEnd> {
    const { socket } = await this.#talker.ask({ action: 'dial', host, port })
    if (socket === undefined) throw new Error('the agent sent no socket')
    return new TcpEnd(socket, options)
  }

  /** Opens a UDP socket here; it is open until the world is closed. */
  async udp(family: Family, port: number): Promise<UdpSocket> {
    const { udp } = await this.#talker.ask({ action: 'udp', host: this.addresses[family], port })
    if (udp === undefined) throw new Error('the agent sent no socket')
    this.#sockets.push(udp)
    return udp
  }

  /**
   * Opens a TCP listener on 127.0.0.1 here whose behaviour is set before each connection.
   * @param wanted its port; 0: any
   */
  async target(wanted = 0): Promise<ScriptedTarget> {
    const agent = this.#talker
    const host = '127.0.0.1'
    const { port = 0 } = (await agent.ask({ action: 'listen', host, port: wanted })).reply
    const connections: TcpEnd[] = []
    const waiting: { index: number; resolve: (end: TcpEnd) => void }[] = []
    let serve: (end: TcpEnd) => void = (end) => end.destroy()
    agent.onAccept(port, (socket) => {
      const end = new TcpEnd(socket)
      const index = connections.push(end) - 1
      for (const waiter of waiting) if (waiter.index === index) waiter.resolve(end)
      serve(end)
    })
    const connection = (index: number): Promise<TcpEnd> => {
      const end = connections[index]
      return end === undefined ? new Promise((resolve) => waiting.push({ index, resolve })) : Promise.resolve(end)
    }
    return {
      host,
      port,
      address: formatAddress(host, port),
      connections,
      connection,
      async close() {
        for (const end of connections) end.destroy()
        await agent.ask({ action: 'close', port })
      },
      serve(behaviour) {
        serve = behaviour
        return connection(connections.length)
      },
    }
  }

  #defaultRoutes(): string {
    if (this.#gateways === undefined) return ''
    return `route replace default via ${this.#gateways[4]}\nroute replace ::/0 via ${this.#gateways[6]}`
  }

  /** Sets the interface down and removes its addresses and routes. */
  unplug(): void {
    this.namespace.ip('addr flush dev eth0\nlink set eth0 down')
  }

  /** Sets the interface up, with its old addresses or, as after a change of network, with others. */
  plug(addresses: Readonly<Record<Family, string>> = this.addresses): void {
    this.namespace.ip(
      `link set eth0 up
       addr add ${addresses[4]}/24 dev eth0
       addr add ${addresses[6]}/64 dev eth0 nodad
       ${this.#defaultRoutes()}`,
    )
  }

  stop(): void {
    for (const socket of this.#sockets) socket.close()
    this.#agent?.stop()
  }
}

/** What changes in a NAT rebinding: the public addresses, or only the ports. */
export interface Rebinding {
  /** Last number of its public addresses. */
  readonly number?: number
  /** First of 1000 ports for new mappings. */
  readonly firstPort?: number
}

const PUBLIC4 = '203.0.113.'
const PUBLIC6 = '2001:db8::'
const publicAddresses = (number: number): Record<Family, string> => ({
  4: `${PUBLIC4}${number}`,
  6: `${PUBLIC6}${number}`,
})

/** A home router with the interfaces `lan` and `wan`. */
export class Router {
  readonly namespace: Namespace
  readonly #site: number
  #number: number
  #hosts = 0

  constructor(namespace: Namespace, site: number) {
    this.namespace = namespace
    this.#site = site
    this.#number = site * 10
    namespace.forward()
    namespace.ip(
      `link add lan type bridge
       link set lan up
       addr add ${this.#inside(1)[4]}/24 dev lan
       addr add ${this.#inside(1)[6]}/64 dev lan nodad
       link set wan up`,
    )
    this.#setPublic()
    namespace.run(
      ['nft', '-f', '-'],
      `table inet nat {
         chain postrouting {
           type nat hook postrouting priority srcnat; policy accept
           oifname "wan" masquerade
         }
       }
       table inet filter {
         chain input {
           type filter hook input priority filter; policy drop
           ct state established,related accept
           icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
           iifname "wan" meta l4proto udp counter drop comment "unsolicited"
         }
         chain forward {
           type filter hook forward priority filter; policy drop
           ct state established,related accept
           iifname "lan" oifname "wan" accept
           iifname "lan" oifname "lan" accept comment "bridged, where br_netfilter shows it here"
         }
       }`,
    )
  }

  #inside(number: number): Record<Family, string> {
    return { 4: `192.168.${this.#site}.${number}`, 6: `fd00:${this.#site}::${number}` }
  }

  get publicAddresses(): Record<Family, string> {
    return publicAddresses(this.#number)
  }

  #setPublic(): void {
    this.namespace.ip(
      `addr add ${this.publicAddresses[4]}/24 dev wan
       addr add ${this.publicAddresses[6]}/64 dev wan nodad
       route replace default via ${publicAddresses(1)[4]}
       route replace ::/0 via ${publicAddresses(1)[6]}`,
    )
  }

  /** A new host behind this router. */
  addHost(title: string): Host {
    const addresses = this.#inside(11 + this.#hosts)
    const host = new Host(new Namespace(title), addresses, this.#inside(1))
    const port = `port${this.#hosts++}`
    this.namespace.ip(
      `link add ${port} type veth peer name eth0 netns ${host.namespace.name}
       link set ${port} master lan up`,
    )
    host.plug()
    return host
  }

  /** Number of unsolicited UDP datagrams that were dropped on `wan`. */
  unsolicited(): number {
    const rules = this.namespace.run(['nft', 'list', 'chain', 'inet', 'filter', 'input'])
    return Number(/counter packets (\d+) .*unsolicited/.exec(rules)?.[1] ?? 0)
  }

  /**
   * Translates UDP to fixed addresses (`snat to`) instead of those of the interface. Unlike masquerading, the mappings
   * outlive their address. What is sent to an address that the router no longer has does not arrive, also while a
   * neighbour still knows it.
   */
  fixSource(): void {
    const rule = 'add rule inet nat postrouting oifname "wan"'
    this.namespace.run(
      ['nft', '-f', '-'],
      `flush chain inet nat postrouting
       ${rule} meta l4proto udp snat ip to ${this.publicAddresses[4]}
       ${rule} meta l4proto udp snat ip6 to ${this.publicAddresses[6]}
       ${rule} masquerade
       table inet gone
       delete table inet gone
       table inet gone {
         chain prerouting {
           type filter hook prerouting priority raw
           iifname "wan" meta l4proto udp fib daddr type != local drop
         }
       }`,
    )
  }

  /**
   * Changes the public addresses. Only new mappings use them: the datagrams of an old one still leave with an address
   * that the router no longer has, and each of them keeps that mapping alive.
   */
  strand(number: number): void {
    this.namespace.ip('route del ::/0\naddr flush dev wan scope global')
    this.#number = number
    this.#setPublic()
    this.fixSource()
  }

  /** Discards every mapping and changes new ones, as after a reboot or a new lease. */
  rebind(change: Rebinding): void {
    const { firstPort } = change
    if (firstPort !== undefined) {
      this.namespace.run(
        ['nft', '-f', '-'],
        `flush chain inet nat postrouting
         add rule inet nat postrouting oifname "wan" meta l4proto udp masquerade to :${firstPort}-${firstPort + 999}
         add rule inet nat postrouting oifname "wan" masquerade`,
      )
    }
    // removing an address also removes its masqueraded connections
    this.namespace.ip('route del ::/0\naddr flush dev wan scope global')
    if (change.number !== undefined) this.#number = change.number
    this.#setPublic()
  }
}

/** The whole network of the picture above. */
export class World {
  readonly #namespaces: Namespace[] = []
  readonly #hosts: Host[] = []
  #links = 0
  /** The public network; rendezvous servers run on this host. */
  readonly net: Host

  constructor() {
    worlds.add(this)
    const namespace = this.#keep(new Namespace('net'))
    this.net = new Host(namespace, publicAddresses(1))
    this.#hosts.push(this.net)
    namespace.forward()
    namespace.ip(
      `link add eth0 type bridge
       link set eth0 up
       addr add ${this.net.addresses[4]}/24 dev eth0
       addr add ${this.net.addresses[6]}/64 dev eth0 nodad`,
    )
  }

  #keep(namespace: Namespace): Namespace {
    this.#namespaces.push(namespace)
    return namespace
  }

  #link(namespace: Namespace, name: string): void {
    const port = `port${this.#links++}`
    this.net.namespace.ip(
      `link add ${port} type veth peer name ${name} netns ${namespace.name}
       link set ${port} master eth0 up`,
    )
  }

  /** Adds a router whose public addresses end in 10 * site. */
  addRouter(title: string, site: number): Router {
    const namespace = this.#keep(new Namespace(title))
    this.#link(namespace, 'wan')
    return new Router(namespace, site)
  }

  /** Adds a host behind a router. */
  addHost(title: string, router: Router): Host {
    const host = router.addHost(title)
    this.#keep(host.namespace)
    this.#hosts.push(host)
    return host
  }

  /** Adds a host with public addresses. */
  addPublicHost(title: string, number: number): Host {
    const namespace = this.#keep(new Namespace(title))
    this.#link(namespace, 'eth0')
    const host = new Host(namespace, publicAddresses(number), publicAddresses(1))
    this.#hosts.push(host)
    host.plug()
    return host
  }

  /** Sets the loss of packets that enter the public network, in percent. */
  setLoss(percent: number): void {
    const { namespace } = this.net
    namespace.run(['nft', '-f', '-'], 'table netdev loss\ndelete table netdev loss\n')
    if (percent === 0) return
    const chains = Array.from(
      { length: this.#links },
      (_, i) => `chain port${i} {
         type filter hook ingress device port${i} priority 0
         ${percent < 100 ? `numgen random mod 100 < ${percent}` : ''} counter drop
       }`,
    )
    namespace.run(['nft', '-f', '-'], `table netdev loss {\n${chains.join('\n')}\n}\n`)
  }

  /** Ends the agents and removes the namespaces; the caller stops the programs it started. */
  close(): void {
    if (!worlds.delete(this)) return
    for (const host of this.#hosts) host.stop()
    for (const namespace of this.#namespaces) namespace.remove()
  }
}
