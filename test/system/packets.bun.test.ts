/** Packet and raw sockets by bun:ffi. */
import { os } from '../../runtime-bun/os.ts'
import { packetsTests } from './packets.ts'

await packetsTests(os, 'bun')
