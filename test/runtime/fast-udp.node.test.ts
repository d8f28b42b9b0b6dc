/** The fast path of UDP by koffi. */
import { nodeRuntime } from '../../runtime-node/runtime.ts'
import { fastUdpTests } from './fast-udp.ts'

fastUdpTests(nodeRuntime())
