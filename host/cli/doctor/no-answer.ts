/**
 * Determines why a peer does not answer. A peer drops datagrams that it cannot open, so a wrong key looks like an
 * absent host. Further probes distinguish the causes:
 *
 * - Does the peer answer to another method, without a method, or to the key that kcptun-libev uses if none is set
 *   (protocol.md 3.7)?
 * - Does the answer come from another address, or from another address of the same name?
 * - Do other ports of the host return "port unreachable"? If so, ICMP arrives, and a program listens on the configured
 *   port without answering.
 */

import type { Config } from '../../config/config.ts'
import { checkStart } from '../../config/security.ts'
import { withKey } from '../../crypto/key.ts'
import { KEY_BYTES, methods } from '../../crypto/methods.ts'
import { openAead, type RuntimeCrypto } from '../../crypto/open.ts'
import { type SocketAddress, sameAddress } from '../../net/address.ts'
import type { Runtime, UdpOptions } from '../../runtime.ts'
import { asSeenBy } from '../../transport/rendezvous.ts'
import { wildcard } from '../../transport/resolver.ts'
import { Pinger } from './pings.ts'
import { Probe } from './probe.ts'
import { type Cipher, cipherOf, PLAIN } from './voice.ts'

/** Attempts of each probe. */
const QUESTIONS = 4
/** Pause between two attempts, ms. */
const QUESTION_PAUSE_MS = 250
/** Wait after the last attempt, ms. */
const LAST_WAIT_MS = 1200
/** Maximum number of further addresses of a name to probe. */
const SIBLINGS_MAX = 8
/** Number of other ports to probe: some may be in use, and datagrams may be lost. */
const NEIGHBOURS = 4
/** Ports outside the ephemeral range of Linux and rarely used by services. */
const NEIGHBOUR_FIRST = 61_000
const NEIGHBOUR_RANGE = 4000
/** The key that kcptun-libev uses when it has a method but no key (protocol.md 3.7). */
const NO_KEY_BYTE = 0xdb

/** Result of the further probes. */
export interface Silence {
  /** An answer with another method or key, or from another address, than configured. */
  readonly other: { readonly cipher: Cipher; readonly from: SocketAddress } | undefined
  /** The peer now answers as configured. */
  readonly recovered: boolean
  /** Another address of the peer's name that answers. */
  readonly sibling: SocketAddress | undefined
  /** The host answers with ICMP errors on closed ports. */
  readonly neighboursRefuse: boolean
}

/** Ciphers for all methods and keys that the peer may use instead of the configured ones. */
async function otherCiphers(config: Config, crypto: RuntimeCrypto): Promise<Cipher[]> {
  const ciphers: Cipher[] = config.method === undefined ? [] : [PLAIN]
  const noKey = new Uint8Array(KEY_BYTES).fill(NO_KEY_BYTE)
  const add = async (method: string, key: Uint8Array, how: string): Promise<void> => {
    ciphers.push(cipherOf(await openAead(method, key, crypto), `${method} ${how}`))
  }
  try {
    for (const method of methods) await add(method, noKey, 'without a key')
    const security = checkStart(config, methods)
    if (security === undefined) return ciphers
    await withKey(security, async (key) => {
      for (const method of methods) if (method !== config.method) await add(method, key, 'with the same key')
    })
    return ciphers
  } catch (error) {
    for (const cipher of ciphers) cipher.wipe()
    throw error
  }
}

/**
 * Runs all further probes.
 * @param own method and key of the configuration
 * @param siblings further addresses of the peer's name
 */
export async function investigate(
  runtime: Runtime,
  config: Config,
  crypto: RuntimeCrypto,
  own: Cipher,
  options: UdpOptions,
  peer: SocketAddress,
  siblings: readonly SocketAddress[],
): Promise<Silence> {
  const { bind, socketOptions } = options
  const [{ other, recovered }, sibling, neighboursRefuse] = await Promise.all([
    findOther(runtime, config, crypto, own, { bind, socketOptions }, peer),
    findSibling(runtime, config, own, siblings),
    askNeighbours(runtime, config, { bind, socketOptions }, peer),
  ])
  return { other, recovered, sibling, neighboursRefuse }
}

async function findOther(
  runtime: Runtime,
  config: Config,
  crypto: RuntimeCrypto,
  own: Cipher,
  options: UdpOptions,
  peer: SocketAddress,
): Promise<Pick<Silence, 'other' | 'recovered'>> {
  const strange = await otherCiphers(config, crypto)
  // PLAIN last: it opens every datagram
  const ciphers = [own, ...strange].toSorted((a, b) => Number(a === PLAIN) - Number(b === PLAIN))
  let other: Silence['other']
  let recovered = false
  // not connected, so that answers from other addresses are received
  const probe = await Probe.open(runtime, config, options, ciphers).catch((error) => {
    for (const cipher of strange) cipher.wipe()
    throw error
  })
  const seen = probe.local === undefined ? peer : asSeenBy(probe.local, peer)
  const pinger = new Pinger(probe)
  probe.onAnswer = (answer) => {
    if (!pinger.take(answer)) return
    const { cipher, from } = answer
    if (cipher === own && sameAddress(from, seen)) recovered = true
    else other ??= { cipher, from }
  }
  const isOver = (): boolean => other !== undefined || recovered
  for (let i = 0; i < QUESTIONS && !isOver(); i++) {
    for (const cipher of ciphers) pinger.send(peer, 0, cipher)
    await probe.until(isOver, QUESTION_PAUSE_MS)
  }
  await probe.until(isOver, LAST_WAIT_MS)
  probe.close()
  for (const cipher of strange) cipher.wipe()
  return { other, recovered }
}

/** Returns the first of these addresses that answers with our key. */
export async function findSibling(
  runtime: Runtime,
  config: Config,
  own: Cipher,
  siblings: readonly SocketAddress[],
): Promise<SocketAddress | undefined> {
  const answers = async (address: SocketAddress): Promise<boolean> => {
    try {
      const probe = await Probe.open(runtime, config, { bind: wildcard(address.family), connect: address }, [own])
      const pinger = new Pinger(probe)
      probe.onAnswer = (answer) => void pinger.take(answer)
      const isAnswered = (): boolean => pinger.answers.size > 0
      for (let i = 0; i < QUESTIONS && !isAnswered(); i++) {
        pinger.send(address)
        await probe.until(isAnswered, QUESTION_PAUSE_MS)
      }
      const answered = await probe.until(isAnswered, LAST_WAIT_MS)
      probe.close()
      return answered
    } catch {
      // no route to this address
      return false
    }
  }
  const asked = siblings.slice(0, SIBLINGS_MAX)
  const results = await Promise.all(asked.map(answers))
  return asked[results.indexOf(true)]
}

/** Whether the peer's host answers with an ICMP error on a closed port. */
async function askNeighbours(
  runtime: Runtime,
  config: Config,
  options: UdpOptions,
  peer: SocketAddress,
): Promise<boolean> {
  const start = Math.floor(Math.random() * NEIGHBOUR_RANGE)
  const ask = async (i: number): Promise<boolean> => {
    const port = NEIGHBOUR_FIRST + ((start + i * (NEIGHBOUR_RANGE / NEIGHBOURS)) % NEIGHBOUR_RANGE)
    try {
      const probe = await Probe.open(runtime, config, { ...options, connect: { ...peer, port } }, [])
      const isRefused = (): boolean => probe.errors.has('ECONNREFUSED')
      for (let attempt = 0; attempt < 2 && !isRefused(); attempt++) {
        // the error is reported by the next system call at the latest
        probe.poke(peer)
        await probe.until(isRefused, QUESTION_PAUSE_MS * 2)
      }
      await probe.until(isRefused, LAST_WAIT_MS / 2)
      const refused = isRefused()
      probe.close()
      return refused
    } catch {
      return false
    }
  }
  return (await Promise.all(Array.from({ length: NEIGHBOURS }, (_, i) => ask(i)))).some((refused) => refused)
}
