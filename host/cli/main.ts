/**
 * The main program, from command line to exit status (protocol.md 10.5). The runtime entry points only call `main`.
 */

import type { ConfigFile } from '../config/config.ts'
import { startFileWarnings, startKeyWarnings } from '../config/lint.ts'
import { assertStartable } from '../config/security.ts'
import { parseFile } from '../config/tunnels.ts'
import { generatePsk } from '../crypto/key.ts'
import { methods } from '../crypto/methods.ts'
import { listMethods, type RuntimeCrypto } from '../crypto/open.ts'
import { makeReload, type Reloadable } from '../endpoint/reload.ts'
import { messageOf } from '../errors.ts'
import { LOG_LEVEL_DEFAULT, Log, type Print } from '../log/log.ts'
import { LogOutput } from '../log/log-output.ts'
import { openSyslog, type SyslogWriter } from '../log/syslog.ts'
import type { ReloadRequest } from '../monitoring/source.ts'
import type { OperatingSystem, Runtime } from '../runtime.ts'
import { startService } from '../servers/start.ts'
import { DaemonChild, launchDaemon } from '../service/daemon.ts'
import {
  checkIdentity,
  giveFile,
  giveSocket,
  type Identity,
  parseIdentity,
  rightsWarnings,
  takeIdentity,
} from '../service/identity.ts'
import { ServiceNotifier } from '../service/notify.ts'
import { firewallOf } from '../transport/obfs/firewall.ts'
import { PROGRAM, VERSION } from '../version.ts'
import { runWorker } from '../workers/child.ts'
import { openWorkers } from '../workers/workers.ts'
import { type Args, adjustLevel, COMMAND_LINE, PLUGIN_VARIABLES, parseArgs, usageText } from './args.ts'
import { runCommand } from './commands/command.ts'
import { fileSource, readConfig, type Source } from './source.ts'

type RunArgs = Extract<Args, { kind: 'run' }>

/**
 * Runs the program.
 * @param argv the words after the program name
 * @param crypto the runtime's ciphers
 */
export async function main(runtime: Runtime, argv: readonly string[], crypto: RuntimeCrypto): Promise<void> {
  if (runtime.os?.workers?.inside !== undefined) return runWorker(runtime, runtime.os.workers, crypto)
  const { os } = runtime
  const isPlugin = PLUGIN_VARIABLES.some((name) => os?.env(name))
  const args = parseArgs(argv, isPlugin)
  const inside = args.kind === 'run' && args.daemonize && os?.daemon?.inside === true
  const child = inside && os?.daemon !== undefined ? new DaemonChild(os.daemon) : undefined
  const print: Print = child?.print ?? ((stream, text) => runtime.print(stream, text))
  const log = new Log(
    print,
    () => new Date(),
    (now) => openSyslogOf(os, now),
    (callback, ms) => runtime.clock.setTimer(callback, ms),
  )
  switch (args.kind) {
    case 'help':
      runtime.print('stdout', usageText(PROGRAM))
      return runtime.exit(0)
    case 'version':
      runtime.print('stdout', `${PROGRAM} ${VERSION} (${runtime.name} ${runtime.version})\n`)
      return runtime.exit(0)
    case 'list-methods':
      runtime.print('stderr', `supported methods:\n${await methodList(crypto)}`)
      return runtime.exit(0)
    case 'genpsk':
      if (args.method !== undefined && !methods.includes(args.method)) {
        const why = `must be one of ${methods.join(', ')}`
        runtime.print('stderr', `${PROGRAM}: unknown method ${JSON.stringify(args.method)}: ${why}\n`)
        return runtime.exit(1)
      }
      runtime.print('stdout', `${generatePsk()}\n`)
      return runtime.exit(0)
    case 'command':
      runtime.prepareMemory?.((text) => log.warning(text))
      return runtime.exit(await runCommand({ runtime, crypto, commandLine: COMMAND_LINE }, args.entry, args.words))
    case 'obfs-firewall':
      try {
        const { config, tunnels = [config] } = parseFile(await readConfig(runtime, args.config))
        for (const each of tunnels) assertStartable(each, methods)
        const wanting = tunnels.filter(({ obfs }) => obfs !== undefined)
        for (const each of wanting.length > 0 ? wanting : tunnels.slice(0, 1))
          runtime.print('stdout', await firewallOf(runtime, each))
        return runtime.exit(0)
      } catch (error) {
        log.error(messageOf(error))
        return runtime.exit(1)
      }
    case 'hop-firewall':
      try {
        const { config, tunnels = [config] } = parseFile(await readConfig(runtime, args.config))
        const { hopFirewallOf } = await import('../transport/hop-firewall.ts')
        runtime.print('stdout', await hopFirewallOf(runtime, tunnels, args.ports))
        return runtime.exit(0)
      } catch (error) {
        log.error(messageOf(error))
        return runtime.exit(1)
      }
    case 'error':
      // the error last: it says what to do next
      if (args.usage) runtime.print('stderr', `${usageText(PROGRAM)}\n`)
      runtime.print('stderr', `${PROGRAM}: ${args.message}\n`)
      return runtime.exit(args.status)
    case 'run':
      log.setFormat(args.logFormat)
      log.setLevel(adjustLevel(LOG_LEVEL_DEFAULT, args.verbosity))
      if (!args.daemonize || child !== undefined) {
        const parent = os?.parentPid?.() ?? 0
        const openSource = async (): Promise<Source> => {
          if (args.config !== undefined) return fileSource(runtime, args.config, log, isPlugin)
          const { pluginSource } = await import('./plugin.ts')
          return pluginSource(runtime, log, argv, parent)
        }
        return run(runtime, log, args, crypto, child, openSource)
      }
      if (os?.daemon === undefined) {
        log.error('option -d (--daemonize) is not available on this system: use a service manager')
        return runtime.exit(1)
      }
      // a signal for the daemon must not end this process
      runtime.onReopen?.(() => {})
      // the daemon is started with other options where it needs them, and does not look at the limit
      runtime.prepareMemory?.((text) => log.warning(text), false)
      return runtime.exit(await launchDaemon(runtime, os.daemon, log))
  }
}

/** One line per method, with the library that implements it on this system. */
async function methodList(crypto: RuntimeCrypto): Promise<string> {
  const list = await listMethods(crypto)
  return list.map(({ method, provider }) => `  - ${method}  (${provider})\n`).join('')
}

/** @param warn gets what is odd about the keys if the file is invalid: it may be the cause */
function parseStart(bytes: Uint8Array, warn: (texts: readonly string[]) => void): ConfigFile {
  try {
    return parseFile(bytes)
  } catch (error) {
    warn(startKeyWarnings(bytes))
    throw error
  }
}

function openSyslogOf(os: OperatingSystem | undefined, now: () => Date): SyslogWriter {
  if (os === undefined) throw new Error('not available on this system')
  return openSyslog(os, now)
}

/** What a file describes, while it runs. */
interface Service {
  readonly status: string
  onStatus: (status: string) => void
  onReloadRequest: ReloadRequest | undefined
  /** Resolves when it has ended by itself, with a reason that is already logged. */
  readonly failed: Promise<Error>
  /** Starts workers, when root is not needed any more. */
  start?(): Promise<void>
  sendLevel?(): void
  /** Of several tunnels. */
  rightsWarnings?(identity: Identity): string[]
  close(): void | Promise<void>
}

/** Opens everything that may require privileges. @throws ConfigError, StartError */
async function open(
  runtime: Runtime,
  file: ConfigFile,
  log: Log,
  crypto: RuntimeCrypto,
): Promise<Service & Reloadable> {
  const { config, tunnels } = file
  if (tunnels !== undefined) {
    const { openTunnels } = await import('../tunnels/tunnels.ts')
    return openTunnels(runtime, file, log, crypto)
  }
  return config.workers > 1 ? openWorkers(runtime, config, log) : startService(runtime, config, log, crypto)
}

/** Takes the identity that the file or the command line asks for: root is not needed any more. @throws Error */
function changeUser(
  runtime: Runtime,
  identity: Identity,
  { config, tunnels = [config] }: ConfigFile,
  service: Service,
  { log, output }: FileLog,
): void {
  const { os } = runtime
  const texts = service.rightsWarnings?.(identity) ?? rightsWarnings(os, identity, config, service.status)
  for (const text of texts) log.warning(text)
  for (const one of tunnels) giveSocket(runtime, identity, one)
  if (os !== undefined && output.isNew) giveFile(os, identity, 'the log file', (uid, gid) => output.setOwner(uid, gid))
  takeIdentity(os, identity, log)
}

/** The log as a file configures it: level, output, and warnings about the file. */
class FileLog {
  readonly log: Log
  readonly output: LogOutput
  readonly #runtime: Runtime
  readonly #verbosity: number
  #warned: readonly string[] = []

  constructor(runtime: Runtime, log: Log, verbosity: number) {
    this.log = log
    this.output = new LogOutput(runtime, log)
    this.#runtime = runtime
    this.#verbosity = verbosity
  }

  /** Logs warnings that it did not log the last time. */
  readonly warn = (texts: readonly string[]): void => {
    for (const text of texts) if (!this.#warned.includes(text)) this.log.warning(text)
    this.#warned = texts
  }

  /**
   * @param path of the file, if there is one
   * @throws ConfigError if the output is a file that cannot be opened
   */
  async apply(path: string | undefined, { config, tunnels = [] }: ConfigFile, bytes: Uint8Array): Promise<void> {
    this.log.setLevel(adjustLevel(config.loglevel, this.#verbosity))
    await this.output.set(config.log ?? 'stdout')
    const mode = path === undefined ? undefined : this.#runtime.commandConsole?.fileMode(path)
    this.warn([...startFileWarnings(path ?? '', mode, config, ...tunnels), ...startKeyWarnings(bytes)])
  }

  /** The same when the rest is in force already. */
  async reapply(path: string | undefined, file: ConfigFile, bytes: Uint8Array): Promise<void> {
    const onError = (error: unknown): void => this.log.error(`${messageOf(error)}; the log stays where it is`)
    await this.apply(path, file, bytes).catch(onError)
  }
}

/** Runs what a configuration describes. @param child set if this process becomes the daemon */
async function run(
  runtime: Runtime,
  log: Log,
  { verbosity, user }: RunArgs,
  crypto: RuntimeCrypto,
  child: DaemonChild | undefined,
  openSource: () => Promise<Source>,
): Promise<void> {
  const notifier = new ServiceNotifier(runtime.os, log)
  const fileLog = new FileLog(runtime, log, verbosity)
  const { output } = fileLog
  let stop = (): void | Promise<void> => {}
  let isReloadWanted = false
  let reload = (): void => {
    isReloadWanted = true
    log.notice('SIGHUP received: the reload follows when the start is complete')
  }
  const end = (reason: string): void => {
    log.notice(`${reason}, stopping`)
    notifier.stopping()
    const stopped = stop() ?? output.flush()
    if (stopped === undefined) runtime.exit(0)
    else void stopped.then(() => output.flush()).then(() => runtime.exit(0))
  }
  runtime.onTerminate((signal) => end(`${signal} received`))
  runtime.onReload(() => reload())
  runtime.onReopen?.(() => output.reopen())
  let source: Source | undefined
  try {
    source = await openSource()
    const { name, path, read } = source
    const bytes = await read()
    const file = parseStart(bytes, fileLog.warn)
    const { config, tunnels = [config] } = file
    if (!config.native) runtime.os?.native?.forbid('native is false')
    runtime.prepareMemory?.((text) => log.warning(text))
    // from here on the log never waits for who reads it
    const print =
      child === undefined ? runtime.openLog?.(tunnels.some(({ udp }) => udp.path !== 'portable')) : undefined
    if (print !== undefined) log.setPrint(print)
    await fileLog.apply(path, file, bytes)
    source.begin(end)
    const identityText = user ?? config.user
    const identity = identityText === undefined ? undefined : parseIdentity(identityText)
    if (identity !== undefined) checkIdentity(runtime.os, identity)
    const service = await open(runtime, file, log, crypto)
    stop = () => service.close()
    // no connection has been accepted yet
    if (identity !== undefined) {
      changeUser(runtime, identity, file, service, fileLog)
      await read().catch((error) => log.warning(`a reload will fail: ${messageOf(error)}`))
    }
    await service.start?.()
    service.onStatus = (status) => notifier.status(status)
    const reloadFile = makeReload({
      ...{ runtime, log, path: name, read, endpoint: service },
      checkLog: (next) => output.check(next.config.log ?? 'stdout'),
      async applyLog(next, content) {
        await fileLog.reapply(path, next, content)
        service.sendLevel?.()
      },
      onBegin: () => notifier.reloading(),
      onEnd: () => notifier.ready(service.status),
    })
    reload = reloadFile
    service.onReloadRequest = (by) => {
      log.notice(`reload requested over HTTP by ${by}`)
      return reloadFile()
    }
    if (child !== undefined) log.detach()
    notifier.ready(service.status)
    child?.ready()
    if (isReloadWanted) reload()
    await service.failed
  } catch (error) {
    log.fatal(messageOf(source === undefined ? error : source.explain(error)))
  }
  await output.flush()
  // repeated engine traps or a failed start, both already logged
  return runtime.exit(1)
}
