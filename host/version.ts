/** Name, version and home of the program, for --version and the banner of /stats. The version is that of package.json. */
import { version } from '../package.json'

export const PROGRAM = 'kcptun-wasm'
export const VERSION: string = version
export const PROJECT_URL = 'https://github.com/kcptun-wasm/kcptun-wasm'
