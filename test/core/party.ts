import * as assert from 'uvu/assert'
import { Mode } from '../../host/engine/core.ts'
import type { DecodedAddress } from '../../testkit/decode.ts'
import { type Address, address4, addressKey } from '../../testkit/sim/address.ts'
import { type Output, Solo, type SoloOptions } from '../../testkit/sim/solo.ts'
import { concat, fromHex, toHex, utf8, What } from '../../testkit/sim/wire.ts'

export const RENDEZVOUS = address4(1, 12345)
export const LOCAL = address4(3, 39427)
export const ID = utf8('myservice')

/** A server or client in rendezvous mode. */
export function party(role: 'client' | 'server', options: Partial<SoloOptions> = {}): Solo {
  const mode = Mode.RENDEZVOUS | (role === 'client' ? Mode.CLIENT : Mode.SERVER)
  const solo = new Solo({ role, peer: false, ...options, config: { ...options.config, mode } })
  solo.endpoint.setRendezvous(RENDEZVOUS, LOCAL, ID)
  solo.run(1)
  return solo
}

/** Wire encoding of an address. */
export function wire(record: Address): Uint8Array {
  const view = new DataView(record.buffer)
  const port = view.getUint16(2, true)
  const tail = new Uint8Array([port >> 8, port])
  if (view.getUint16(0, true) === 4) return concat(new Uint8Array([0]), record.subarray(8, 12), tail)
  return concat(new Uint8Array([1]), record.subarray(8, 24), tail)
}

export function hello(what: number, local: Address, id: Uint8Array): Uint8Array {
  return concat(new Uint8Array([0, 0, 0, 0, 0, what]), wire(local), new Uint8Array([id.length >> 8, id.length]), id)
}

export function punch(first: Address, second: Address): Uint8Array {
  return concat(fromHex('00000000 0005'), wire(first), wire(second))
}

export function addresses(output: Output | undefined): readonly DecodedAddress[] {
  return output && 'session0' in output.decoded ? (output.decoded.addrs ?? []) : []
}

export function pinged(outputs: readonly Output[]): string[] {
  const pings = outputs.filter(({ plain }) => plain[5] === What.PING && toHex(plain.subarray(0, 4)) === '00000000')
  return [...new Set(pings.map(({ peer }) => addressKey(peer)))].sort()
}

/** Answers the last PING sent to `peer`, from that address or from `from`. */
export function answer(solo: Solo, peer: Address, from: Address = peer): void {
  solo.run(1)
  const ping = solo.take().findLast((output) => isPing(output) && addressKey(output.peer) === addressKey(peer))
  assert.ok(ping, 'no PING')
  const pong = ping.plain.slice()
  pong[5] = What.PONG
  solo.feedFrom(from, pong)
}

/** The messages but PINGs to the rendezvous server. */
export function others(outputs: readonly Output[]): Output[] {
  return outputs.filter((output) => !(isPing(output) && addressKey(output.peer) === addressKey(RENDEZVOUS)))
}

export function isPing({ conv, plain }: Output): boolean {
  return conv === 0 && plain[5] === What.PING
}
