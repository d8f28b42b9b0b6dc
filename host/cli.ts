/**
 * The program: command line to exit status (protocol.md 10.5). The entry files of the runtimes call `main` and do nothing else.
 */
import { adjustLevel, parseArgs, usageText } from './args.ts'
import { ConfigError } from './config/error.ts'
import { parseConfig } from './config/load.ts'
import { type AesGcmFactory, methods } from './crypto/aead.ts'
import { generatePsk } from './crypto/key.ts'
import { StartError, startEndpoint } from './endpoint.ts'
import { LOG_LEVEL_DEFAULT, Log } from './log.ts'
import type { Runtime } from './runtime.ts'
import { PROGRAM, VERSION } from './version.ts'

/** What an error says to people: expected ones by their message alone. */
function explain(error: unknown): string {
  if (error instanceof ConfigError || error instanceof StartError) return error.message
  return error instanceof Error ? error.message : String(error)
}

/**
 * Runs the program.
 * @param argv the words after the program's name
 * @param aesGcm the runtime's AES-256-GCM
 */
export async function main(runtime: Runtime, argv: readonly string[], aesGcm: AesGcmFactory): Promise<void> {
  const log = new Log((stream, text) => runtime.print(stream, text))
  const args = parseArgs(argv)
  switch (args.kind) {
    case 'help':
      runtime.print('stderr', usageText(PROGRAM))
      return runtime.exit(0)
    case 'version':
      runtime.print('stdout', `${PROGRAM} ${VERSION} (${runtime.name} ${runtime.version})\n`)
      return runtime.exit(0)
    case 'list-methods':
      runtime.print('stderr', `supported methods:\n${methods.map((name) => `  - ${name}\n`).join('')}`)
      return runtime.exit(0)
    case 'genpsk':
      if (!methods.includes(args.method)) {
        log.error(`unknown method ${JSON.stringify(args.method)}, known are ${methods.join(', ')}`)
        return runtime.exit(1)
      }
      runtime.print('stdout', `${generatePsk()}\n`)
      return runtime.exit(0)
    case 'error':
      log.error(args.message)
      if (args.usage) runtime.print('stderr', usageText(PROGRAM))
      return runtime.exit(args.status)
    case 'run':
      return run(runtime, log, args.config, args.verbosity, aesGcm)
  }
}

async function run(runtime: Runtime, log: Log, path: string, verbosity: number, aesGcm: AesGcmFactory): Promise<void> {
  log.setLevel(adjustLevel(LOG_LEVEL_DEFAULT, verbosity))
  let stop = (): void => {}
  runtime.onTerminate((signal) => {
    log.notice(`${signal} received, stopping`)
    stop()
    runtime.exit(0)
  })
  try {
    const bytes = await runtime.readFile(path).catch((error) => {
      throw new StartError(`config file ${path}: ${explain(error)}`)
    })
    const config = parseConfig(bytes)
    log.setLevel(adjustLevel(config.loglevel, verbosity))
    if (config.log !== undefined) log.setOutput(config.log)
    const endpoint = await startEndpoint(runtime, config, log, aesGcm)
    stop = () => endpoint.close()
    await endpoint.failed
  } catch (error) {
    log.fatal(explain(error))
  }
  // the engine broke, or the start failed: both have been logged
  return runtime.exit(1)
}
