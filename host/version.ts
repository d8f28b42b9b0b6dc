/** Name and version of the program, for --version and the banner of /stats. The version comes from package.json. */
import { version } from '../package.json'

export const PROGRAM = 'kcptun-wasm'
export const VERSION: string = version
/** Second line of the banner: the wire protocol. kcptun-libev prints its project's address here. */
export const BANNER_LINE = 'wire protocol of https://github.com/hexian000/kcptun-libev'

/** How the text of a link begins (config/link.ts). A link holds a key, so it is refused on the command line. */
export const LINK_PREFIX = `${PROGRAM}://`
