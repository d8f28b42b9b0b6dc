/** Packet and raw sockets by koffi. */
import { os } from '../../runtime-node/os.ts'
import { packetsTests } from './packets.ts'

await packetsTests(os, 'node')
