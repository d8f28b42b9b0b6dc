/** The subcommands, in the order of the usage text. */

import type { CommandEntry } from './command.ts'

export const COMMANDS: readonly CommandEntry[] = [
  { name: 'init', summary: 'write matching config files with a new key', load: () => import('./init.ts') },
  {
    name: 'import',
    summary: 'write config files from a link, or for a Go kcptun',
    load: () => import('./import.ts'),
  },
  { name: 'link', summary: 'print a client as a link, also for a user of a server', load: () => import('./link.ts') },
  { name: 'rotate', summary: 'print the steps to change a key', load: () => import('./rotate.ts') },
  { name: 'check', summary: 'validate and explain a config file', load: () => import('./check.ts') },
  { name: 'doctor', summary: 'diagnose the path to the peer', load: () => import('./doctor.ts') },
  { name: 'health', summary: 'check whether a tunnel works, for supervisors', load: () => import('./health.ts') },
  { name: 'top', summary: 'show live statistics of a tunnel', load: () => import('./top.ts') },
  {
    name: 'udp-wrap',
    summary: 'carry UDP over the TCP of another tunnel, client side',
    load: async () => ({ command: (await import('./udp-end.ts')).wrapCommand }),
  },
  {
    name: 'udp-unwrap',
    summary: 'carry UDP over the TCP of another tunnel, server side',
    load: async () => ({ command: (await import('./udp-end.ts')).unwrapCommand }),
  },
  { name: 'completions', summary: 'print a shell completion script', load: () => import('./completions.ts') },
]

export function findCommand(name: string | undefined): CommandEntry | undefined {
  return COMMANDS.find((entry) => entry.name === name)
}
