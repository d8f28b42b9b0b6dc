/** Machines, addresses and programs of a simulated world, by topology. */
import type { Aead } from '../../host/crypto/aead.ts'
import type { RuntimeCrypto } from '../../host/crypto/open.ts'
import type { SocketAddress } from '../../host/net/address.ts'
import { Carrier } from './carrier.ts'
import type { EventLoop } from './event-loop.ts'
import { LibraryProgram, type LibraryRole } from './library-program.ts'
import { Machine, type Process, type Violation } from './machine.ts'
import { ModelProgram } from './model-program.ts'
import { ipv4, Nat, type Network } from './network.ts'
import { EndpointProgram, type Program, type ProgramOptions, WorkersProgram } from './program.ts'
import { changed } from './reloads.ts'
import type { Scenario, Topology } from './scenario.ts'
import type { TcpPorts } from './tcp.ts'

export type EndName = 'client' | 'server'

export const ENTRY = ipv4('127.0.0.1', 8080)
/** The target before and after a change of `connect`. */
export const TARGETS = [ipv4('127.0.0.1', 9000), ipv4('127.0.0.2', 9000)] as const
export const SERVER_PORT = 4000
const WORKERS = 3
const PSK = 'MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE='

/** Keys of the patterns that the model sends and expects. */
export const MODEL_KEYS = { client: 11, server: 12 } as const

export interface Surroundings {
  readonly loop: EventLoop
  readonly network: Network
  readonly tcp: TcpPorts
  readonly crypto: RuntimeCrypto
  /** Cipher of the scenario's method, keyed with PSK. */
  readonly aead: Aead
  readonly report: Violation
}

export interface Parties {
  readonly machines: Readonly<Record<EndName, Machine>>
  readonly client: Program | ModelProgram
  readonly server: Program | ModelProgram
  readonly rendezvous: Program | undefined
}

/** PSK as bytes, for the model. */
export const keyBytes = (): Uint8Array => Uint8Array.from(atob(PSK), (char) => char.charCodeAt(0))

function addMachine(around: Surroundings, name: string, address: string, clock: number): Machine {
  const machine = new Machine(around.loop, name, address, clock)
  around.network.machines.push(machine)
  return machine
}

function configOf(scenario: Scenario, keys: object): object {
  return { method: scenario.method, psk: PSK, loglevel: 6, ...scenario.config, ...keys }
}

function modelOf(scenario: Scenario, around: Surroundings, machine: Machine, role: EndName): ModelProgram {
  const plan = scenario.streams[0]?.[role]
  const other = role === 'client' ? 'server' : 'client'
  return new ModelProgram({
    ...optionsOf(around, machine, `model-${role}`),
    role,
    aead: around.aead,
    port: SERVER_PORT,
    server: () => ipv4(around.network.names.get('server.example') ?? '', SERVER_PORT),
    expected: MODEL_KEYS[other],
    script: { bytes: plan?.send ?? 0, stream: MODEL_KEYS[role], chunk: 5000, writeRate: 20 },
    seed: scenario.seed,
  })
}

function optionsOf(around: Surroundings, machine: Machine, name: string): ProgramOptions {
  const { network, tcp, crypto, report } = around
  return { machine, network, tcp, crypto, name, report }
}

/** Worlds whose client, and whose server, is behind a NAT. */
const NAT_CLIENTS: readonly Topology[] = [
  'nat',
  'rendezvous',
  'library-server',
  'library-rendezvous',
  'library-carrier',
]
const NAT_SERVERS: readonly Topology[] = ['rendezvous', 'library-rendezvous']
/** Worlds in which an application uses the library at an end. */
const LIBRARY_CLIENTS: readonly Topology[] = ['library-client', 'library-pair', 'library-rendezvous', 'library-carrier']
const LIBRARY_SERVERS: readonly Topology[] = ['library-server', 'library-pair', 'library-rendezvous', 'library-carrier']

/** The addresses of the name of the rendezvous server, which has one of them at a time. */
export const RENDEZVOUS = ['203.0.113.1', '203.0.113.2'] as const

/** Keys of the configuration files, or of the options where the library is used. */
function keysOf(topology: Topology): Record<EndName, object> {
  const connect = 'target.example:9000'
  const listen = `${ENTRY.address}:${ENTRY.port}`
  const target = LIBRARY_SERVERS.includes(topology) ? {} : { connect }
  const entry = LIBRARY_CLIENTS.includes(topology) ? {} : { listen }
  if (topology === 'library-carrier') return { client: {}, server: {} }
  if (NAT_SERVERS.includes(topology)) {
    const meet = { rendezvous_server: 'rendezvous.example:4000', service_id: 'service' }
    return { client: { ...entry, ...meet }, server: { ...target, ...meet } }
  }
  const [to, at] = ['server.example:4000', `0.0.0.0:${SERVER_PORT}`]
  return {
    client: { ...entry, [LIBRARY_CLIENTS.includes(topology) ? 'server' : 'kcp_connect']: to },
    server: { ...target, [LIBRARY_SERVERS.includes(topology) ? 'bind' : 'kcp_bind']: at },
  }
}

/** A program that uses the library: its streams at this end, or its tunnel in the place of the program. */
function libraryOf(scenario: Scenario, around: Surroundings, machine: Machine, end: EndName): Program {
  const { topology, library } = scenario
  const isTunnel = !(end === 'client' ? LIBRARY_CLIENTS : LIBRARY_SERVERS).includes(topology)
  const { network, report } = around
  const server = (): SocketAddress => ipv4(network.names.get('server.example') ?? '', SERVER_PORT)
  const place = end === 'client' ? { port: 0, server } : { port: SERVER_PORT }
  const carrier = (process: Process): Carrier => new Carrier({ network, process, report, ...place })
  const role: LibraryRole = {
    kind: isTunnel ? 'tunnel' : end,
    isGreedy: library?.isGreedy ?? false,
    closing: library?.closing ?? 'close()',
    ...(topology === 'library-carrier' && { carrier }),
  }
  const own = role.kind === 'client' && library !== undefined ? { when_down: library.when_down } : {}
  const config = configOf(scenario, { ...keysOf(topology)[end], ...own })
  return new LibraryProgram(optionsOf(around, machine, end), config, role)
}

function makeRendezvous(scenario: Scenario, around: Surroundings, clock: number): Program {
  around.network.names.set('rendezvous.example', RENDEZVOUS.join(' '))
  const machine = addMachine(around, 'rendezvous', RENDEZVOUS[0], clock)
  const config = configOf(scenario, { kcp_bind: `0.0.0.0:${SERVER_PORT}` })
  return new EndpointProgram(optionsOf(around, machine, 'rendezvous'), config)
}

/** Sets up the machines of a scenario without starting programs. */
export function makeParties(scenario: Scenario, around: Surroundings): Parties {
  const { topology } = scenario
  const { network } = around
  const [clientClock = 0, serverClock = 0, thirdClock = 0] = scenario.clocks
  const [isNat, isServerNat] = [NAT_CLIENTS.includes(topology), NAT_SERVERS.includes(topology)]
  const client = addMachine(around, 'client', isNat ? '10.0.0.2' : '192.0.2.1', clientClock)
  const server = addMachine(around, 'server', isServerNat ? '10.1.0.2' : '198.51.100.1', serverClock)
  if (isNat) network.nats.push(new Nat('192.0.2.1', client))
  if (isServerNat) network.nats.push(new Nat('198.51.100.1', server))
  network.names.set('server.example', '198.51.100.1')
  network.names.set('target.example', TARGETS[0].address)
  network.names.set('target2.example', TARGETS[1].address)
  const keys = keysOf(topology)
  const make = (machine: Machine, end: EndName): Program | ModelProgram => {
    if (topology === `model-${end}`) return modelOf(scenario, around, machine, end)
    if (topology.startsWith('library')) return libraryOf(scenario, around, machine, end)
    const config = configOf(scenario, keys[end])
    if (end === 'client' || topology !== 'workers') return new EndpointProgram(optionsOf(around, machine, end), config)
    const several = changed(config, { workers: WORKERS })
    return new WorkersProgram(optionsOf(around, machine, end), several, WORKERS, SERVER_PORT)
  }
  return {
    machines: { client, server },
    client: make(client, 'client'),
    server: make(server, 'server'),
    rendezvous: isServerNat ? makeRendezvous(scenario, around, thirdClock) : undefined,
  }
}
