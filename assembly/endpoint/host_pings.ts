/*
 * PINGs of the host, which measures a path with them, and their answers: an answer may come from another address than was
 * asked, or twice, and the host is told both.
 */

import {
  E_ARGUMENT,
  E_MEMORY,
  MAX_DATAGRAM_BYTES,
  PONG_ADDRESS,
  PONG_BYTES,
  PONG_NUMBER,
  PONG_RTT,
  PONG_SLOTS,
} from '../abi'
import { argumentOf, HOST_PING, sendPing, sentAtOf } from '../control/pings'
import { copyAddress, isAddress } from '../packet/address'
import { sealBytes } from '../packet/datagram'
import { Ticks } from '../units'

export const pongs: usize = memory.data(PONG_SLOTS * PONG_BYTES, 8)
let pongCount: u32 = 0
let nextNumber: u32 = 0

/**
 * Queues a PING.
 * @param bytes of plaintext that it tests the path with; 0: an ordinary one
 * @returns its number, or an error
 */
export function pingAddress(address: usize, bytes: u32, now: Ticks): i32 {
  if (!isAddress(address) || bytes > MAX_DATAGRAM_BYTES - sealBytes()) return E_ARGUMENT
  if (!sendPing(HOST_PING, nextNumber, address, now, bytes)) return E_MEMORY
  const number = nextNumber
  nextNumber = (nextNumber + 1) & i32.MAX_VALUE
  return number
}

/** A PONG from `address` answers `ping`. */
export function onHostPong(ping: usize, address: usize, now: Ticks): void {
  if (pongCount == PONG_SLOTS) return
  const at = pongs + <usize>(pongCount++ * PONG_BYTES)
  store<u32>(at, argumentOf(ping), PONG_NUMBER)
  store<u32>(at, now - sentAtOf(ping), PONG_RTT)
  copyAddress(at + PONG_ADDRESS, address)
}

/** @returns number of answers since the last call, which are at `pongs` */
export function takePongs(): u32 {
  const n = pongCount
  pongCount = 0
  return n
}
