// node testkit/no-ipv6.mjs COMMAND ARGUMENT...
//
// Runs a command that cannot create IPv6 sockets, as on a kernel that was started with ipv6.disable=1: a seccomp filter
// makes socket(AF_INET6) fail with EAFNOSUPPORT. The command replaces this process. Needs koffi.

import koffi from 'koffi'

const PR_SET_NO_NEW_PRIVS = 38
const PR_SET_SECCOMP = 22
const SECCOMP_MODE_FILTER = 2
const SECCOMP_RET_ALLOW = 0x7fff0000
const SECCOMP_RET_ERRNO = 0x00050000
const EAFNOSUPPORT = 97
const AF_INET6 = 10
const F_SETFD = 2
/** Offsets in struct seccomp_data. */
const AT_NUMBER = 0
const AT_FIRST_ARGUMENT = 16
/** Number of socket(2). */
const SOCKET = process.arch === 'arm64' ? 198 : 41

const BPF_LOAD_WORD = 0x20
const BPF_JUMP_EQUAL = 0x15
const BPF_RETURN = 0x06

/** Instructions of a classic BPF program: code, jump if true, jump if false, operand. */
const program = [
  [BPF_LOAD_WORD, 0, 0, AT_NUMBER],
  [BPF_JUMP_EQUAL, 0, 3, SOCKET],
  [BPF_LOAD_WORD, 0, 0, AT_FIRST_ARGUMENT],
  [BPF_JUMP_EQUAL, 0, 1, AF_INET6],
  [BPF_RETURN, 0, 0, SECCOMP_RET_ERRNO | EAFNOSUPPORT],
  [BPF_RETURN, 0, 0, SECCOMP_RET_ALLOW],
]

const filter = new DataView(new ArrayBuffer(program.length * 8))
for (const [i, [code = 0, yes = 0, no = 0, operand = 0]] of program.entries()) {
  filter.setUint16(i * 8, code, true)
  filter.setUint8(i * 8 + 2, yes)
  filter.setUint8(i * 8 + 3, no)
  filter.setUint32(i * 8 + 4, operand, true)
}
const fprog = new DataView(new ArrayBuffer(16))
fprog.setUint16(0, program.length, true)
fprog.setBigUint64(8, koffi.address(filter.buffer), true)

const libc = koffi.load(null)
const prctl = libc.func('int prctl(int, uintptr_t, uintptr_t, uintptr_t, uintptr_t)')
const fcntl = libc.func('int fcntl(int, int, int)')
const execvp = libc.func('int execvp(const char *, const char **)')
const address = Number(koffi.address(fprog.buffer))
if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0) !== 0) {
  throw new Error(`prctl failed with errno ${koffi.errno()}`)
}
// Node marks its standard streams close-on-exec
for (const fd of [0, 1, 2]) fcntl(fd, F_SETFD, 0)
const command = process.argv.slice(2)
execvp(command[0], [...command, null])
throw new Error(`${command[0]}: errno ${koffi.errno()}`)
