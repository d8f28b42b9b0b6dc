/**
 * A process that serves or generates traffic on request of its parent (this bundle started again as `bench agent`): in
 * a network namespace, or because ten thousand connections at both ends exceed the descriptor limit of one process.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { download, type EchoResult, echo, openTarget, pour, type Target } from './flow.ts'
import { httpGet, projectRoot } from './process.ts'

interface Where {
  readonly host: string
  readonly port: number
}

type Order =
  /** Opens a target; answer: its port. */
  | { readonly action: 'target'; readonly host: string }
  /** Answer: bytes that the target discarded. */
  | { readonly action: 'discarded' }
  /** Uploads or downloads continuously over a number of connections until `stop`. */
  | ({ readonly action: 'pour' | 'download'; readonly connections: number } & Where)
  /** Answer: JSON of an EchoResult. */
  | ({ readonly action: 'echo'; readonly everyMs: number; readonly messages: number } & Where)
  /** Answer: bytes downloaded. */
  | { readonly action: 'received' }
  /** Ends the flows; answer: the error of one, if any. */
  | { readonly action: 'stop' }
  /** Answer: body of a GET. */
  | { readonly action: 'get'; readonly url: string }

type Answer = number | string | null

interface Reply {
  readonly id: number
  readonly answer?: Answer
  readonly error?: string
}

/** Parent's handle of the agent process. */
export class Agent {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>()
  #lastId = 0

  /**
   * Starts the process; it exits with its parent at the latest.
   * @param prefix command prefix, such as `ip netns exec NAME`
   */
  constructor(prefix: readonly string[] = []) {
    const [command = '', ...args] = [...prefix, process.execPath, join(projectRoot, 'dist/bench.js'), 'agent']
    this.#child = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', ({ id, answer = null, error }: Reply) => {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) waiting?.resolve(answer)
      else waiting?.reject(new Error(error))
    })
    const end = (how: string): void => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the agent ended: ${how}`))
      this.#waiting.clear()
    }
    this.#child.once('error', (error) => end(error.message))
    this.#child.once('exit', (code) => end(`status ${code}`))
  }

  get pid(): number {
    return this.#child.pid ?? -1
  }

  #ask(order: Order): Promise<Answer> {
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      this.#child.send({ id, ...order }, (error) => error && reject(error))
    })
  }

  /** See Order. */
  target = async (host = '127.0.0.1'): Promise<number> => Number(await this.#ask({ action: 'target', host }))
  discarded = async (): Promise<number> => Number(await this.#ask({ action: 'discarded' }))
  received = async (): Promise<number> => Number(await this.#ask({ action: 'received' }))
  flow = async (action: 'pour' | 'download', where: Where, connections = 1): Promise<void> =>
    void (await this.#ask({ action, connections, ...where }))
  echo = async (where: Where, everyMs: number, messages: number): Promise<EchoResult> =>
    JSON.parse(String(await this.#ask({ action: 'echo', everyMs, messages, ...where })))
  get = async (url: string): Promise<string> => String(await this.#ask({ action: 'get', url }))
  async stop(): Promise<string | undefined> {
    const failure = await this.#ask({ action: 'stop' })
    return failure === null ? undefined : String(failure)
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || !this.#child.connected) return
    const ended = new Promise((done) => this.#child.once('exit', done))
    this.#child.disconnect()
    await ended
  }
}

/** `bench agent`: runs the agent until its parent disconnects. */
export function runAgent(): void {
  let target: Target | undefined
  let flows: { received?(): number; failed(): string | undefined; stop(): void }[] = []
  const perform = async (order: Order): Promise<Answer> => {
    switch (order.action) {
      case 'target':
        target = await openTarget(order.host)
        return target.port
      case 'discarded':
        return target?.discarded ?? 0
      case 'pour':
      case 'download': {
        const open = order.action === 'pour' ? pour : download
        for (let i = 0; i < order.connections; i++) flows.push(open(order.port, order.host))
        return null
      }
      case 'echo':
        return JSON.stringify(await echo(order.port, order.everyMs, order.messages, 0, order.host))
      case 'received':
        return flows.reduce((sum, flow) => sum + (flow.received?.() ?? 0), 0)
      case 'stop': {
        const failure = flows.map((flow) => flow.failed()).find((text) => text !== undefined)
        for (const flow of flows) flow.stop()
        flows = []
        return failure ?? null
      }
      case 'get':
        return httpGet(order.url)
    }
  }
  process.on('disconnect', () => process.exit(0))
  process.on('message', ({ id, ...order }: Order & { id: number }) => {
    perform(order).then(
      (answer) => process.send?.({ id, answer }),
      (error: unknown) => process.send?.({ id, error: String(error) }),
    )
  })
}
