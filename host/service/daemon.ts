/**
 * Daemonization (protocol.md 10.5): the program starts itself again without a terminal, forwards the output of the new
 * process until it is ready, and exits with status 0, or with 1 if the new process fails to start. A fork is not
 * possible because JavaScript runtimes are multithreaded.
 *
 * Protocol of the pipe: lines that consist of a mark and a line for stdout or stderr, or of the readiness mark alone.
 */
import { limitHint } from '../linux/address-space.ts'
import type { Log } from '../log/log.ts'
import type { DaemonCalls, Runtime } from '../runtime.ts'

const TO_STDOUT = '1'
const TO_STDERR = '2'
const READY = '!'

type Stream = 'stdout' | 'stderr'
type Print = (stream: Stream, text: string) => void

/** The process that becomes the daemon. */
export class DaemonChild {
  readonly #calls: DaemonCalls
  #open = true

  constructor(calls: DaemonCalls) {
    this.#calls = calls
  }

  /** Replaces Runtime.print. After ready() its output is discarded. */
  readonly print: Print = (stream, text) => {
    if (!this.#open) return
    const mark = stream === 'stdout' ? TO_STDOUT : TO_STDERR
    const lines = text.endsWith('\n') ? text.slice(0, -1) : text
    this.#calls.report(`${mark}${lines.replaceAll('\n', `\n${mark}`)}\n`)
  }

  /** Reports readiness: the first process exits. */
  ready(): void {
    if (!this.#open) return
    this.#open = false
    this.#calls.report(`${READY}\n`)
    this.#calls.reported()
  }
}

/**
 * Runs the first process: starts the daemon and waits until it is ready.
 * @returns the exit status
 */
export function launchDaemon(runtime: Runtime, calls: DaemonCalls, log: Log): Promise<0 | 1> {
  return new Promise((resolve) => {
    let rest = ''
    let serves = false
    let over = false
    const onLine = (line: string): void => {
      const text = `${line.slice(1)}\n`
      if (line.startsWith(TO_STDOUT)) runtime.print('stdout', text)
      else if (line.startsWith(TO_STDERR)) runtime.print('stderr', text)
      else if (line.startsWith(READY)) {
        serves = true
        log.notice(`daemon started, pid ${child.pid}`)
        resolve(0)
      }
    }
    const child = calls.start(
      (text) => {
        const lines = (rest + text).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) onLine(line)
      },
      (how) => {
        if (serves || over) return
        over = true
        log.fatal(`the daemon failed to start: ${how}${limitHint(runtime.os, how)}`)
        resolve(1)
      },
    )
    runtime.onTerminate((signal) => {
      child.kill()
      log.fatal(`${signal} received before the daemon was ready`)
      runtime.exit(1)
    })
  })
}
