// time limit: 600 s
import { testPairs } from './matrix.ts'

testPairs('our server, kcptun-libev client', [
  { server: 'node', client: 'libev' },
  { server: 'bun', client: 'libev' },
])
