/** Writes configuration files that only their owner can read: all or none, over existing ones only on request. */

import type { Role, Written } from '../../config/generate.ts'
import { codeOf, messageOf } from '../../errors.ts'
import type { CommandConsole } from '../../runtime.ts'
import type { Option } from '../options.ts'
import { CommandError } from './command.ts'
import { startable } from './startable.ts'

/** Option of the commands that write configurations. */
export const DIR: Option = {
  long: '--dir',
  value: '<directory>',
  help: 'output directory, default is the current one; it is\ncreated where it does not exist',
  offers: 'directories',
}

/** Where files go, and what happens to those that exist. */
export interface Destination {
  /** Created where it does not exist; `.`: left alone. */
  readonly dir: string
  /** Existing files are replaced. */
  readonly isForced: boolean
  /** Existing files are changed: they keep owner and permission bits. */
  readonly isChange?: boolean
  /** What to do about a file that exists. */
  readonly remedy: string
}

const taken = ({ remedy }: Destination): string => `already exists: ${remedy}`

/** Checks before the first question that the files can be created. @throws CommandError */
export function expectRoom(commandConsole: CommandConsole, to: Destination, paths: Iterable<string>): void {
  const { dir, isForced } = to
  try {
    commandConsole.fileMode(dir)
  } catch (error) {
    // it will be created
    if (codeOf(error) === 'ENOENT') return
    throw new CommandError(`--dir ${dir}: ${messageOf(error)}`)
  }
  if (isForced) return
  for (const path of paths) {
    try {
      commandConsole.fileMode(path)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') continue
      throw new CommandError(`${path}: ${messageOf(error)}`)
    }
    throw new CommandError(`${path}: ${taken(to)}`)
  }
}

/** Writes all files or none; one that was replaced stays so. @throws CommandError */
export function writeAll(
  commandConsole: CommandConsole,
  to: Destination,
  files: readonly { readonly path: string; readonly text: string }[],
): void {
  const { dir, isForced, isChange } = to
  const written: string[] = []
  try {
    if (dir !== '.') commandConsole.createDirectory(dir)
  } catch (error) {
    throw new CommandError(`--dir ${dir}: ${messageOf(error)}; nothing was written`)
  }
  for (const { path, text } of files) {
    try {
      if (isForced) commandConsole.replaceFile(path, text, isChange)
      else commandConsole.createFile(path, text)
      written.push(path)
    } catch (error) {
      if (!isForced) for (const done of written) commandConsole.removeFile(done)
      const why = codeOf(error) === 'EEXIST' ? taken(to) : messageOf(error)
      const what = isForced && written.length > 0 ? `${written.join(', ')} is written` : 'nothing was written'
      throw new CommandError(`${path}: ${why}; ${what}`)
    }
  }
}

/** @param name the role, or of a user's client `client-` and his name */
export const pathOf = (dir: string, name: Role | 'tunnels' | `client-${string}` | `server-${number}`): string =>
  dir === '.' ? `${name}.json` : `${dir.replace(/\/+$/, '')}/${name}.json`

/** The content of a file, validated like at startup. @throws ConfigError */
export function textOf(written: Written): string {
  const text = `${JSON.stringify(written, null, 2)}\n`
  startable(new TextEncoder().encode(text))
  return text
}
