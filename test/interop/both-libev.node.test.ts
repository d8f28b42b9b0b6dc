// time limit: 300 s
/** kcptun-libev at both endpoints: shows that the other interop tests measure the programs and not the harness. */
import { testPairs } from './matrix.ts'

testPairs('kcptun-libev at both endpoints (check of the harness)', [{ server: 'libev', client: 'libev' }])
