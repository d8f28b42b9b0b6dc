/**
 * The process that opens sockets inside a network namespace and passes them to the test (test/netns/agent.mjs).
 */
import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { Socket as UdpSocket } from 'node:dgram'
import { Socket } from 'node:net'
import { join } from 'node:path'
import { projectRoot } from './process.ts'

/** Time limit of a reply, long enough for a loaded machine. */
const AGENT_TIMEOUT_MS = 30_000

interface Reply {
  readonly id?: number
  readonly error?: string
  readonly port?: number
  readonly body?: string
  readonly accepted?: number
}

interface Answer {
  readonly reply: Reply
  readonly socket: Socket | undefined
  readonly udp: UdpSocket | undefined
}

/** One agent process and its pending requests. */
export class NetnsAgent {
  readonly #child: ChildProcess
  readonly #waiting = new Map<number, (answer: Answer) => void>()
  readonly #accept = new Map<number, (socket: Socket) => void>()
  #lastId = 0
  readonly #ready: Promise<unknown>

  /** @param namespace name of the network namespace */
  constructor(namespace: string) {
    const args = ['netns', 'exec', namespace, process.execPath, join(projectRoot, 'test/netns/agent.mjs')]
    this.#child = spawn('ip', args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (reply: Reply, handle: unknown) => {
      const socket = handle instanceof Socket ? handle : undefined
      if (socket !== undefined) socket.allowHalfOpen = true
      const udp = handle instanceof UdpSocket ? handle : undefined
      if (reply.id !== undefined) this.#waiting.get(reply.id)?.({ reply, socket, udp })
      else if (reply.accepted !== undefined && socket !== undefined) this.#accept.get(reply.accepted)?.(socket)
    })
    this.#ready = this.#wait(0)
  }

  #wait(id: number): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no answer from the agent')), AGENT_TIMEOUT_MS)
      this.#waiting.set(id, (answer) => {
        clearTimeout(timer)
        this.#waiting.delete(id)
        if (answer.reply.error === undefined) resolve(answer)
        else reject(new Error(answer.reply.error))
      })
    })
  }

  async ask(order: { readonly action: string; readonly [key: string]: string | number }): Promise<Answer> {
    await this.#ready
    const id = ++this.#lastId
    const answer = this.#wait(id)
    this.#child.send({ id, ...order })
    return answer
  }

  /** Sets the callback for connections accepted on a port. */
  onAccept(port: number, callback: (socket: Socket) => void): void {
    this.#accept.set(port, callback)
  }

  stop(): void {
    this.#child.kill('SIGKILL')
  }
}
