/** The streams of a simulated world: an application at each end, and a new attempt after a reset. */
import type { SocketAddress } from '../../host/net/address.ts'
import type { TcpHandlers, TcpListener } from '../../host/runtime.ts'
import { Application, type Connection, type EndPlan, type Keys } from './application.ts'
import type { EventLoop } from './event-loop.ts'
import { LibraryProgram } from './library-program.ts'
import type { Violation } from './machine.ts'
import { ModelProgram } from './model-program.ts'
import { modelPattern, tablePattern } from './pattern.ts'
import { WorkersProgram } from './program.ts'
import type { StreamPlan } from './scenario.ts'
import type { TcpPorts } from './tcp.ts'
import { ENTRY, MODEL_KEYS, type Parties, TARGETS } from './topology.ts'

/** First and longest pause before a new attempt after a reset, ms. */
const RETRY_MS = 300
const RETRY_MAX_MS = 60_000
/** After every this many attempts, the next one is delayed until both machines run. */
const PATIENT_ATTEMPTS = 5
/** Interval of checks of a session of the model, ms. */
const LOOK_MS = 1000
/** A failed lookup counts for a moment (host/transport/target.ts), ms. */
const NAME_GRACE_MS = 200
/** First bytes of a stream: its number. */
const HEADER_BYTES = 4

/** One attempt of a stream. */
interface Attempt {
  readonly stream: Stream
  readonly number: number
  client: Application | undefined
  server: Application | undefined
  /** The client moved during this attempt, and another worker of the server may have dialled again. */
  mayRepeat: boolean
  /** The server lost its state during this attempt: it dials again if the client has received nothing of its answer. */
  isForgotten: boolean
  /** The name server was down: the target may have no address, which its client sees as a clean end. */
  isUnresolved: boolean
}

/** A stream to be carried, over one or more attempts. */
export class Stream {
  readonly name: string
  readonly plan: StreamPlan
  isDone = false
  attempts = 0
  /** Bytes delivered by the complete attempt. */
  bytes = 0

  constructor(name: string, plan: StreamPlan) {
    this.name = name
    this.plan = plan
  }
}

export interface StreamsOptions {
  readonly loop: EventLoop
  readonly tcp: TcpPorts
  readonly parties: Parties
  readonly report: Violation
}

/** Whether applications use the library there, in place of TCP. */
function isLibrary(program: Parties['client']): program is LibraryProgram {
  return program instanceof LibraryProgram && program.role.kind !== 'tunnel'
}

/** All streams and their target. */
export class Streams {
  readonly all: Stream[] = []
  /** Applications that have not ended. */
  readonly living = new Set<Application>()
  readonly endings = { complete: 0, reset: 0, aborted: 0, open: 0 }
  /** No new attempts while set. */
  isClosed = false
  readonly #options: StreamsOptions
  readonly #attempts: Attempt[] = []
  #serverLosses = 0
  /** Streams that begin before this time may find a target without address. */
  #unresolvedUntil = Number.NEGATIVE_INFINITY
  #isAborting = false
  #target: TcpListener

  constructor(options: StreamsOptions) {
    this.#options = options
    this.#target = this.#listen(TARGETS[0])
    this.#listen(TARGETS[1])
    const { server } = options.parties
    if (isLibrary(server)) server.onStream = (connection) => this.#accept(connection)
    if (server instanceof LibraryProgram) server.onClosed = () => this.onServerLost()
  }

  get isDone(): boolean {
    return this.living.size === 0 && this.all.every(({ isDone }) => isDone)
  }

  /** Schedules a stream. */
  add(name: string, plan: StreamPlan): Stream {
    const stream = new Stream(name, plan)
    this.all.push(stream)
    if (plan.client.abortAt >= 0 || plan.server.abortAt >= 0) this.#isAborting = true
    this.#options.loop.in(plan.at, () => this.#open(stream))
    return stream
  }

  #open(stream: Stream): void {
    if (this.isClosed) return
    stream.attempts++
    const { parties } = this.#options
    if (parties.client instanceof ModelProgram) this.#openByModel(stream, parties.client)
    else this.#dial(stream)
  }

  /** When both machines run. */
  get #thaw(): number {
    const { client, server } = this.#options.parties.machines
    return Math.max(client.frozenUntil, server.frozenUntil)
  }

  #retry(stream: Stream): void {
    const { loop } = this.#options
    const due = loop.now + Math.min(RETRY_MAX_MS, RETRY_MS * 1.5 ** stream.attempts)
    // further attempts during a stall of hours test nothing new
    loop.at(stream.attempts % PATIENT_ATTEMPTS === 0 ? Math.max(this.#thaw, due) : due, () => this.#open(stream))
  }

  /**
   * A first flight that a client repeats from a new address may reach another worker, which knows nothing of the first
   * session: a limit of workers (docs/reliability.md).
   */
  onClientMoved(): void {
    if (!(this.#options.parties.server instanceof WorkersProgram)) return
    for (const attempt of this.#attempts) {
      // the end of an aborted stream is repeated, too
      attempt.mayRepeat ||= attempt.client?.ending === 'open' || attempt.client?.ending === 'aborted'
    }
  }

  /** The server restarted, or its engine trapped. */
  onServerLost(): void {
    this.#serverLosses++
    for (const attempt of this.#attempts) {
      // the end of an aborted stream is repeated, too
      attempt.isForgotten ||= attempt.client?.ending === 'open' || attempt.client?.ending === 'aborted'
    }
    if (this.#options.loop.now < this.#unresolvedUntil) this.onNameServer(true)
  }

  /** The name server is down or answers again. */
  onNameServer(isDown: boolean): void {
    // there is no target
    if (isLibrary(this.#options.parties.server)) return
    this.#unresolvedUntil = isDown ? Number.POSITIVE_INFINITY : this.#options.loop.now + NAME_GRACE_MS
    for (const attempt of this.#attempts) {
      if (!isDown || attempt.client?.ending !== 'open') continue
      // a server that restarted dials again
      if (attempt.server !== undefined && !attempt.isForgotten) continue
      attempt.server = undefined
      attempt.isUnresolved = true
      attempt.client.isExcused = true
    }
  }

  /** The target moves to another address, and its name with it. */
  moveTarget(address: SocketAddress): void {
    this.#target.close()
    this.#target = this.#listen(address)
  }

  #listen(address: SocketAddress): TcpListener {
    return this.#options.tcp.listen(address, undefined, (connection) => this.#accept(connection))
  }

  #dial(stream: Stream): void {
    const { parties, loop } = this.#options
    const attempt: Attempt = {
      stream,
      number: this.#attempts.length,
      client: undefined,
      server: undefined,
      mayRepeat: false,
      isForgotten: false,
      isUnresolved: loop.now < this.#unresolvedUntil,
    }
    this.#attempts.push(attempt)
    if (isLibrary(parties.client)) this.#connect(attempt, parties.client)
    else this.#dialTcp(attempt)
  }

  #connect(attempt: Attempt, program: LibraryProgram): void {
    const { stream } = attempt
    const { call, patience } = stream.plan.opening ?? { call: 'open', patience: 0 }
    const opening = { call, patience: stream.attempts === 1 ? patience : 0 }
    const onOpen = (connection: Connection): TcpHandlers => {
      const application = this.#runClient(attempt, connection)
      connection.scheduler?.in(0, () => application.start())
      return application
    }
    program.connect(opening, onOpen, () => this.#retry(stream))
  }

  #dialTcp(attempt: Attempt): void {
    let application: Application | undefined
    const handlers: TcpHandlers = {
      onData: (chunk) => application?.onData(chunk),
      onEnd: () => application?.onEnd(),
      onDrain: () => application?.onDrain(),
      onClose: (error) => {
        if (application === undefined) this.#retry(attempt.stream)
        else application.onClose(error)
      },
    }
    const connection = this.#options.tcp.dial(ENTRY, undefined, handlers, () => {
      application = this.#runClient(attempt, connection)
      application.start()
    })
  }

  #runClient(attempt: Attempt, connection: Connection): Application {
    const { stream, number } = attempt
    const isModel = this.#options.parties.server instanceof ModelProgram
    const header = new Uint8Array(isModel ? 0 : HEADER_BYTES)
    if (!isModel) new DataView(header.buffer).setUint32(0, number)
    const keys: Keys = isModel
      ? { send: MODEL_KEYS.client, receive: MODEL_KEYS.server, skip: 0 }
      : { send: 2 * number, receive: 2 * number + 1, skip: 0 }
    const application = this.#run(`${stream.name}.client`, connection, stream.plan.client, keys, header)
    attempt.client = application
    // its machine may have been suspended since it was dialled
    attempt.isUnresolved ||= this.#options.loop.now < this.#unresolvedUntil
    application.isExcused = attempt.isUnresolved
    application.onAbort = () => {
      // a stream of the library is reset, never ended
      if (attempt.server !== undefined && connection.scheduler === undefined) attempt.server.isExcused = true
    }
    application.onOver = () => this.#onClientOver(attempt)
    return application
  }

  #run(name: string, connection: Connection, plan: EndPlan, keys: Keys, header: Uint8Array): Application {
    const { loop, report, parties } = this.#options
    const isModel = parties.client instanceof ModelProgram || parties.server instanceof ModelProgram
    const pattern = isModel ? modelPattern : tablePattern
    const application = new Application(
      connection.scheduler ?? loop,
      name,
      connection,
      plan,
      pattern,
      keys,
      header,
      report,
    )
    this.living.add(application)
    return application
  }

  #onClientOver(attempt: Attempt): void {
    const { client, stream } = attempt
    if (client === undefined) return
    this.living.delete(client)
    this.endings[client.ending]++
    // a server that aborts resets its client
    const isAborted = client.ending === 'aborted' || attempt.server?.ending === 'aborted'
    const isMissed = attempt.isUnresolved && attempt.server === undefined
    const isCut = isMissed || (attempt.mayRepeat && client.received < client.plan.expect)
    if ((client.ending !== 'complete' || isCut) && !isAborted) {
      this.#retry(stream)
      return
    }
    stream.isDone = true
    stream.bytes = client.received + client.sent
  }

  /** The target: reads the number of a stream and passes the connection to its application. */
  #accept(connection: Connection): TcpHandlers {
    if (this.#options.parties.client instanceof ModelProgram) return this.#acceptOfModel(connection)
    let application: Application | undefined
    const header = new Uint8Array(HEADER_BYTES)
    let have = 0
    connection.resume()
    return {
      onData: (chunk) => {
        if (application !== undefined) return application.onData(chunk)
        const part = chunk.subarray(0, HEADER_BYTES - have)
        header.set(part, have)
        have += part.length
        if (have < HEADER_BYTES) return
        application = this.#meet(connection, new DataView(header.buffer).getUint32(0), header)
        if (application === undefined) connection.reset()
        else if (chunk.length > part.length) application.onData(chunk.subarray(part.length))
      },
      onEnd: () => {
        if (application !== undefined) application.onEnd()
        else if (!this.#isAborting) this.#options.report(`the target received a clean end after ${have} bytes`)
        else connection.reset()
      },
      onDrain: () => application?.onDrain(),
      onClose: (error) => application?.onClose(error),
    }
  }

  #meet(connection: Connection, number: number, header: Uint8Array): Application | undefined {
    const { report, parties } = this.#options
    const attempt = this.#attempts[number]
    if (attempt === undefined) {
      report(`the target received an unknown stream: ${number}`)
      return undefined
    }
    const { stream, server: before } = attempt
    const name = `${stream.name}.server`
    // a reset stream may be dialled again: the server restarted before the client received an answer
    if (before !== undefined && before.ending !== 'reset' && !attempt.isForgotten) {
      // the reset went to an old address of the client: a limit (docs/reliability.md)
      if (before.ending === 'aborted' && isLibrary(parties.server)) return undefined
      if (attempt.mayRepeat) {
        if (attempt.client !== undefined) attempt.client.isExcused = true
        return undefined
      }
      report(`${name}: a second connection, the first one is ${before.ending}`)
      return undefined
    }
    const keys = { send: 2 * number + 1, receive: 2 * number, skip: HEADER_BYTES }
    const application = this.#run(name, connection, stream.plan.server, keys, new Uint8Array(0))
    attempt.server = application
    if (attempt.isUnresolved && attempt.client !== undefined) attempt.client.isExcused = false
    application.isExcused = attempt.client?.ending === 'aborted' && !isLibrary(this.#options.parties.client)
    application.onAbort = () => {
      // a stream of the library is reset, never ended
      if (attempt.client !== undefined && connection.scheduler === undefined) attempt.client.isExcused = true
    }
    application.onOver = () => this.living.delete(application)
    application.onData(header)
    application.start()
    return application
  }

  #acceptOfModel(connection: Connection): TcpHandlers {
    const plan = this.all[0]?.plan.server
    if (plan === undefined) throw new Error('no streams')
    const keys = { send: MODEL_KEYS.server, receive: MODEL_KEYS.client, skip: 0 }
    const application = this.#run('model.server', connection, plan, keys, new Uint8Array(0))
    application.onOver = () => this.living.delete(application)
    this.#options.loop.in(0, () => application.start())
    return application
  }

  #openByModel(stream: Stream, program: ModelProgram): void {
    const { loop, report } = this.#options
    const session = program.open()
    const { starts } = program
    const losses = this.#serverLosses
    let isJoined = false
    if (session !== undefined)
      session.onWrong = () => {
        // a first segment in flight opens a session at the new process; kcptun-libev joins both answers (docs/reliability.md)
        isJoined = losses !== this.#serverLosses
        if (!isJoined) report(`${stream.name}: the model received wrong bytes`)
        // its client ends the stream, and tells the other end by EOF
        else for (const application of this.living) application.isExcused = true
      }
    const look = (): void => {
      const { script, received, sent } = session ?? {}
      const isComplete =
        session?.eofSent && session.eofReceived && sent === script?.bytes && received === stream.plan.server.send
      if (isComplete) {
        stream.isDone = true
        stream.bytes = (sent ?? 0) + (received ?? 0)
      } else if (isJoined || session === undefined || program.starts !== starts || session.state === 'time_wait') {
        this.#retry(stream)
      } else loop.at(Math.max(this.#thaw, loop.now + LOOK_MS), look)
    }
    loop.in(LOOK_MS, look)
  }
}
