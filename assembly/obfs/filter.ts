/*
 * The classic BPF program of the capture socket (protocol.md 9.1): unfragmented TCP packets to one address and port. It
 * runs in the kernel on packets that begin with the IP header. User space checks again (`isFor`), because the socket
 * may hold packets from before the filter was attached.
 *
 *   instruction: u16 code, u8 jump if true, u8 jump if false, u32 k     (struct sock_filter, host byte order)
 */
import { familyOf, IP, IPV4, isAnyIp, portOf } from '../packet/address'

const INSTRUCTION_BYTES: u32 = 8
const JUMP_IF_TRUE: usize = 2
const JUMP_IF_FALSE: usize = 3
const OPERAND: usize = 4

const LOAD_BYTE: u32 = 0x30
const LOAD_HALF: u32 = 0x28
const LOAD_WORD: u32 = 0x20
/** X = 4 * (byte & 15): bytes of an IPv4 header. */
const LOAD_HEADER: u32 = 0xb1
const LOAD_HALF_BEHIND_X: u32 = 0x48
const LOAD_BYTE_BEHIND_X: u32 = 0x50
const AND: u32 = 0x54
const JUMP_EQUAL: u32 = 0x15
const JUMP_ANY_SET: u32 = 0x45
const RETURN: u32 = 0x06

const ACCEPT: u32 = 0xffffffff
const PROTOCOL_TCP: u32 = 6
/** MF flag or a fragment offset. */
const FRAGMENT: u32 = 0x3fff
/** TCP flags: SYN opens a connection, PSH carries data. */
const SYN_OR_PSH: u32 = 0x0a

let base: usize = 0
let length: u32 = 0

function emit(code: u32, k: u32): void {
  const at = base + <usize>(length * INSTRUCTION_BYTES)
  store<u16>(at, <u16>code)
  store<u16>(at, 0, JUMP_IF_TRUE)
  store<u32>(at, k, OPERAND)
  length++
}

/** Offsets in the packet: protocol and destination of both IP headers, and in IPv4 flags and fragment offset. */
const IPV4_FRAGMENT_AT: u32 = 6
const IPV4_PROTOCOL_AT: u32 = 9
const IPV4_TARGET_AT: u32 = 16
const IPV6_PROTOCOL_AT: u32 = 6
const IPV6_TARGET_AT: u32 = 24
const IPV6_BYTES: u32 = 40
/** Offsets in the TCP header. */
const TCP_TARGET_PORT_AT: u32 = 2
const TCP_FLAGS_AT: u32 = 13

/** Continues if the accumulator equals k, otherwise drops the packet. */
function expect(k: u32): void {
  emit(JUMP_EQUAL, k)
}

/**
 * Writes the program for packets to `local` at `at`.
 * @param onlySynOrPsh drops packets with neither SYN nor PSH: beside a real connection the kernel answers each of our
 *   packets with such an acknowledgement, which carries no new information
 * @returns its number of instructions
 */
export function writeFilter(at: usize, local: usize, onlySynOrPsh: bool): u32 {
  base = at
  length = 0
  const isIpv4 = familyOf(local) == IPV4
  emit(LOAD_BYTE, 0)
  emit(AND, 0xf0)
  expect(isIpv4 ? 0x40 : 0x60)
  emit(LOAD_BYTE, isIpv4 ? IPV4_PROTOCOL_AT : IPV6_PROTOCOL_AT)
  expect(PROTOCOL_TCP)
  if (isIpv4) {
    emit(LOAD_HALF, IPV4_FRAGMENT_AT)
    emit(JUMP_ANY_SET, FRAGMENT)
  }
  if (!isAnyIp(local)) {
    const words: u32 = isIpv4 ? 1 : 4
    for (let i: u32 = 0; i < words; i++) {
      emit(LOAD_WORD, (isIpv4 ? IPV4_TARGET_AT : IPV6_TARGET_AT) + 4 * i)
      expect(bswap<u32>(load<u32>(local + IP + <usize>(4 * i))))
    }
  }
  const port = portOf(local)
  if (isIpv4 && (port || onlySynOrPsh)) emit(LOAD_HEADER, 0)
  if (port) {
    emit(isIpv4 ? LOAD_HALF_BEHIND_X : LOAD_HALF, TCP_TARGET_PORT_AT + (isIpv4 ? 0 : IPV6_BYTES))
    expect(port)
  }
  if (onlySynOrPsh) {
    emit(isIpv4 ? LOAD_BYTE_BEHIND_X : LOAD_BYTE, TCP_FLAGS_AT + (isIpv4 ? 0 : IPV6_BYTES))
    emit(JUMP_ANY_SET, SYN_OR_PSH)
  }
  emit(RETURN, ACCEPT)
  emit(RETURN, 0)
  setJumpTargets()
  if (onlySynOrPsh) {
    // inverted: to the first of the last two instructions if any is set
    const last = base + <usize>((length - 3) * INSTRUCTION_BYTES)
    store<u8>(last, 0, JUMP_IF_TRUE)
    store<u8>(last, 1, JUMP_IF_FALSE)
  }
  return length
}

/** Sets the targets of jumps: a packet that is not ours goes to the last instruction. */
function setJumpTargets(): void {
  for (let i: u32 = 0; i < length; i++) {
    const at = base + <usize>(i * INSTRUCTION_BYTES)
    const away = length - 2 - i
    if (load<u16>(at) == JUMP_EQUAL) store<u8>(at, <u8>away, JUMP_IF_FALSE)
    else if (load<u16>(at) == JUMP_ANY_SET) store<u8>(at, <u8>away, JUMP_IF_TRUE)
  }
}
