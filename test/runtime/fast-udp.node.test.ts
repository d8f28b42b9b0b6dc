/** Batched UDP through koffi. */
import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { fastUdpTests } from './fast-udp.ts'

fastUdpTests(nodeRuntime())
