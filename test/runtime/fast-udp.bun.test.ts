/** The fast path of UDP by bun:ffi. */
import { bunRuntime } from '../../runtime-bun/runtime.ts'
import { fastUdpTests } from './fast-udp.ts'

fastUdpTests(bunRuntime())
