/**
 * The program as a SIP003 plugin of shadowsocks: its environment is the configuration, and it ends with the process that
 * started it. Loaded only there.
 */

import { ANDROID_VPN, explainPlugin, pluginConfig, readPlugin } from '../config/sip003.ts'
import { StartError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Runtime } from '../runtime.ts'
import { watchParent } from '../service/parent.ts'
import { ANDROID_WORDS } from './args.ts'
import { readConfig, type Source } from './source.ts'

const VPN_WORD = '-V'

/**
 * The environment as a configuration.
 * @param argv all arguments
 * @param parent the process that started this one
 * @throws StartError
 */
export function pluginSource(runtime: Runtime, log: Log, argv: readonly string[], parent: number): Source {
  const { os } = runtime
  if (os === undefined) throw new StartError('a plugin requires an operating system')
  if (argv.includes(VPN_WORD)) throw new StartError(`argument ${VPN_WORD}: ${ANDROID_VPN}`)
  const plugin = readPlugin((name) => os.env(name))
  const { configPath: path, isServer, local, remote } = plugin
  const ignored = [...plugin.ignored, ...argv.filter((word) => ANDROID_WORDS.includes(word))]
  let unused: string | undefined
  return {
    name: path ?? 'SS_PLUGIN_OPTIONS',
    path,
    async read() {
      const { bytes, overridden } = pluginConfig(
        plugin,
        path === undefined ? undefined : await readConfig(runtime, path),
      )
      unused = overridden
      return bytes
    },
    explain: (error) => explainPlugin(plugin, error),
    begin(stop) {
      log.notice(
        `SIP003 plugin of shadowsocks, ${isServer ? 'server, with its target at' : 'client, listening on'} ${local}`,
      )
      if (unused !== undefined) log.notice(`${unused} is set: SS_REMOTE_HOST = ${remote.hosts.join('|')} is not used`)
      for (const name of ignored) log.notice(`SIP003: ${name} has no effect`)
      const onEnd = (): void => stop('the program that started this plugin has ended')
      const { polled } = watchParent(os, runtime.clock, parent, onEnd)
      if (polled !== undefined) log.info(`whether shadowsocks still runs is looked at every 2 s: ${polled}`)
    },
  }
}
