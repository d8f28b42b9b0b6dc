/** Operating system services on Deno: the process, system calls, and watches on their descriptors. */
import type { OperatingSystem } from '../host/runtime.ts'
import { processCalls } from '../runtime-shared/process.ts'
import { libc } from './ffi.ts'
import { identityCalls } from './identity.ts'
import { adoptConnection, adoptListener } from './sockets.ts'
import { watch } from './watch.ts'

export const os: OperatingSystem = {
  ...processCalls,
  identity: identityCalls(),
  libc,
  watch,
  adoptListener,
  adoptConnection,
}
