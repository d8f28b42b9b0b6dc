// time limit: 600 s
import { testPairs } from './matrix.ts'

testPairs('our client, kcptun-libev server', [
  { server: 'libev', client: 'node' },
  { server: 'libev', client: 'bun' },
])
