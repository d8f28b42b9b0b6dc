/** npm packages that the bundler made a part of a file. */

import { existsSync, readFileSync } from 'node:fs'

/** Names of the packages inside a file of dist/, by its source map; none for a file that is copied. */
export function packagesIn(path: string): Set<string> {
  const map = `${path}.map`
  if (!existsSync(map)) return new Set()
  const { sources } = JSON.parse(readFileSync(map, 'utf8')) as { readonly sources: readonly string[] }
  const names = sources.map((source) => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(source)?.[1])
  return new Set(names.filter((name) => name !== undefined))
}
