/** Links to clients and their QR codes, as `init` and `link` print them. */

import { linkOf } from '../../config/link.ts'
import { PROGRAM } from '../../version.ts'
import type { Option } from '../options.ts'

export const LINK: Option = {
  long: '--link',
  help: 'also print the client as a link, for "import -" on\nanother machine; a link contains the key',
}
export const QR: Option = { long: '--qr', help: 'also print this link as a QR code' }

/**
 * Clients as links and as QR codes, with the command that takes them.
 * @param clients by name; one without a name is the only one
 * @param columns of the terminal; undefined: the output goes elsewhere
 */
export async function linkText(
  clients: ReadonlyMap<string, Readonly<Record<string, unknown>>>,
  isLinkWanted: boolean,
  isCodeWanted: boolean,
  columns?: number,
): Promise<string> {
  const who = clients.has('') ? 'The client as a link' : 'The clients as links'
  const whoever = clients.has('') ? 'It contains the key: whoever has it' : 'Each contains a key: whoever has it'
  const parts = [`\n${who}, for another machine. ${whoever} can use the tunnel.\n`]
  for (const [name, config] of clients) {
    const link = linkOf(config)
    if (name !== '') parts.push(`${name}:\n`)
    if (isLinkWanted) parts.push(`${link}\n`)
    if (!isCodeWanted) continue
    const { qrText } = await import('../qr-code.ts')
    const code = qrText(link, columns !== undefined)
    if (columns !== undefined && columns < code.columns) {
      parts.push(`The QR code needs ${code.columns} columns, the terminal has ${columns}: use ${LINK.long}.\n`)
    } else parts.push(`${code.lines.join('\n')}\n`)
  }
  parts.push(`There:\n
    npm install -g ${PROGRAM}
    ${PROGRAM} import -    # paste the link; never write it on a command line\n`)
  return parts.join('\n')
}
