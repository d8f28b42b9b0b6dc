/** Name and version of the program, for --version and the banner of /stats. The version is that of package.json. */
import { version } from '../package.json'

export const PROGRAM = 'kcptun-wasm'
export const VERSION: string = version
/** Second line of the banner, where kcptun-libev has the address of its project: the protocol of this program. */
export const BANNER_LINE = 'wire protocol of https://github.com/hexian000/kcptun-libev'
