/** Machines, addresses and programs of a simulated world, by topology. */
import type { Aead } from '../../host/crypto/aead.ts'
import type { RuntimeCrypto } from '../../host/crypto/open.ts'
import type { EventLoop } from './event-loop.ts'
import { Machine, type Violation } from './machine.ts'
import { ModelProgram } from './model-program.ts'
import { ipv4, Nat, type Network } from './network.ts'
import { EndpointProgram, type Program, type ProgramOptions, WorkersProgram } from './program.ts'
import { changed } from './reloads.ts'
import type { Scenario } from './scenario.ts'
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

/** Sets up the machines of a scenario without starting programs. */
export function makeParties(scenario: Scenario, around: Surroundings): Parties {
  const { topology } = scenario
  const { network } = around
  const [clientClock = 0, serverClock = 0, thirdClock = 0] = scenario.clocks
  const isNat = topology === 'nat' || topology === 'rendezvous'
  const client = addMachine(around, 'client', isNat ? '10.0.0.2' : '192.0.2.1', clientClock)
  const server = addMachine(around, 'server', topology === 'rendezvous' ? '10.1.0.2' : '198.51.100.1', serverClock)
  if (isNat) network.nats.push(new Nat('192.0.2.1', client))
  if (topology === 'rendezvous') network.nats.push(new Nat('198.51.100.1', server))
  network.names.set('server.example', '198.51.100.1')
  network.names.set('target.example', TARGETS[0].address)
  network.names.set('target2.example', TARGETS[1].address)
  const listen = `${ENTRY.address}:${ENTRY.port}`
  let clientKeys: object = { listen, kcp_connect: 'server.example:4000' }
  let serverKeys: object = { connect: 'target.example:9000', kcp_bind: `0.0.0.0:${SERVER_PORT}` }
  let rendezvous: Program | undefined
  if (topology === 'rendezvous') {
    const meet = { rendezvous_server: 'rendezvous.example:4000', service_id: 'service' }
    clientKeys = { listen, ...meet }
    serverKeys = { connect: 'target.example:9000', ...meet }
    network.names.set('rendezvous.example', '203.0.113.1')
    const machine = addMachine(around, 'rendezvous', '203.0.113.1', thirdClock)
    const config = configOf(scenario, { kcp_bind: `0.0.0.0:${SERVER_PORT}` })
    rendezvous = new EndpointProgram(optionsOf(around, machine, 'rendezvous'), config)
  }
  const ours = (machine: Machine, name: string, keys: object): Program =>
    new EndpointProgram(optionsOf(around, machine, name), configOf(scenario, keys))
  const makeServer = (): Program | ModelProgram => {
    if (topology === 'model-server') return modelOf(scenario, around, server, 'server')
    if (topology !== 'workers') return ours(server, 'server', serverKeys)
    const config = changed(configOf(scenario, serverKeys), { workers: WORKERS })
    return new WorkersProgram(optionsOf(around, server, 'server'), config, WORKERS, SERVER_PORT)
  }
  return {
    machines: { client, server },
    client:
      topology === 'model-client' ? modelOf(scenario, around, client, 'client') : ours(client, 'client', clientKeys),
    server: makeServer(),
    rendezvous,
  }
}
