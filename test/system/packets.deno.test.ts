/** Packet and raw sockets by Deno.dlopen. */
import { os } from '../../runtime-deno/os.ts'
import { packetsTests } from './packets.ts'

await packetsTests(os, 'deno')
