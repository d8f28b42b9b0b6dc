/** The subcommands, in the order of the usage text. */

import type { CommandEntry } from './command.ts'

export const COMMANDS: readonly CommandEntry[] = [
  { name: 'init', summary: 'write matching config files with a fresh key', load: () => import('./init.ts') },
  { name: 'check', summary: 'check a config file and explain it', load: () => import('./check.ts') },
  { name: 'doctor', summary: 'test the path to the peer', load: () => import('./doctor.ts') },
  { name: 'top', summary: 'watch a running tunnel', load: () => import('./top.ts') },
  { name: 'completions', summary: 'print completions for a shell', load: () => import('./completions.ts') },
]

export function findCommand(name: string | undefined): CommandEntry | undefined {
  return COMMANDS.find((entry) => entry.name === name)
}
