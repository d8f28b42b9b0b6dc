/*
 * The classic BPF program of the capture socket (protocol.md 9.1): TCP packets in one piece to one address and port.
 * It runs in the kernel on packets that begin with the IP header; user space checks again (`isFor`), as packets from
 * before the filter may wait in the socket.
 *
 *   instruction: u16 code, u8 jump if true, u8 jump if false, u32 k     (struct sock_filter, host byte order)
 */

/** Instructions of the longest program: IPv6 with address and port. */
export const MAX_INSTRUCTIONS: u32 = 32
const INSTRUCTION_BYTES: u32 = 8

const LOAD_BYTE: u32 = 0x30
const LOAD_HALF: u32 = 0x28
const LOAD_WORD: u32 = 0x20
/** X = 4 * (byte & 15): bytes of an IPv4 header. */
const LOAD_HEADER: u32 = 0xb1
const LOAD_HALF_BEHIND_X: u32 = 0x48
const AND: u32 = 0x54
const JUMP_EQUAL: u32 = 0x15
const JUMP_ANY_SET: u32 = 0x45
const RETURN: u32 = 0x06

const ACCEPT: u32 = 0xffffffff
const PROTOCOL_TCP: u32 = 6
/** More fragments, or an offset. */
const FRAGMENT: u32 = 0x3fff

let base: usize = 0
let length: u32 = 0

function emit(code: u32, k: u32): void {
  const at = base + <usize>(length * INSTRUCTION_BYTES)
  store<u16>(at, <u16>code)
  store<u16>(at, 0, 2)
  store<u32>(at, k, 4)
  length++
}

/** Goes on if the accumulator equals k, else drops the packet. */
function expect(k: u32): void {
  emit(JUMP_EQUAL, k)
}

/** Writes the program for packets to `local` at `at`; its number of instructions. */
export function writeFilter(at: usize, local: usize): u32 {
  base = at
  length = 0
  const isIpv4 = load<u16>(local) == 4
  emit(LOAD_BYTE, 0)
  emit(AND, 0xf0)
  expect(isIpv4 ? 0x40 : 0x60)
  emit(LOAD_BYTE, isIpv4 ? 9 : 6)
  expect(PROTOCOL_TCP)
  if (isIpv4) {
    emit(LOAD_HALF, 6)
    emit(JUMP_ANY_SET, FRAGMENT)
  }
  if ((load<u64>(local, 8) | load<u64>(local, 16)) != 0) {
    const words: u32 = isIpv4 ? 1 : 4
    for (let i: u32 = 0; i < words; i++) {
      emit(LOAD_WORD, (isIpv4 ? 16 : 24) + 4 * i)
      expect(bswap<u32>(load<u32>(local + 8 + <usize>(4 * i))))
    }
  }
  const port = <u32>load<u16>(local, 2)
  if (port) {
    if (isIpv4) {
      emit(LOAD_HEADER, 0)
      emit(LOAD_HALF_BEHIND_X, 2)
    } else {
      emit(LOAD_HALF, 42)
    }
    expect(port)
  }
  emit(RETURN, ACCEPT)
  emit(RETURN, 0)
  aimJumps()
  return length
}

/** Every jump leads to the last instruction when the packet is not ours. */
function aimJumps(): void {
  for (let i: u32 = 0; i < length; i++) {
    const at = base + <usize>(i * INSTRUCTION_BYTES)
    const away = length - 2 - i
    if (load<u16>(at) == JUMP_EQUAL) store<u8>(at, <u8>away, 3)
    else if (load<u16>(at) == JUMP_ANY_SET) store<u8>(at, <u8>away, 2)
  }
}
