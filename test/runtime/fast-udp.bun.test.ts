/** Batched UDP through bun:ffi. */
import { bunRuntime } from '../../runtime-bun/runtime.ts'
import { fastUdpTests } from './fast-udp.ts'

fastUdpTests(bunRuntime())
