// time limit: 300 s
/** The original at both ends: shows that the other interop tests measure the programs and not the harness. */
import { testPairs } from './matrix.ts'

testPairs('the original at both ends (check of the harness)', [{ server: 'libev', client: 'libev' }])
