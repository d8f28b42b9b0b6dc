/** Batched UDP through Deno.dlopen. */
import { denoRuntime } from '../../runtime-deno/runtime.ts'
import { fastUdpTests } from './fast-udp.ts'

fastUdpTests(denoRuntime())
