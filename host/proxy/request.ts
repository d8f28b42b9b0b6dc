/** What a client asks of a proxy, and the answers; socks5.ts and http-connect.ts are the two protocols. */

/** Why a request is not served. */
export type Refusal =
  | 'malformed'
  | 'unsupported'
  | 'unauthorized'
  | 'denied'
  | 'refused'
  | 'host unreachable'
  | 'network unreachable'
  | 'timeout'
  | 'failed'

/** What the bytes so far mean. `used`: bytes that are done with. */
export type Step =
  | { readonly kind: 'more' }
  /** An answer in the middle of the request. */
  | { readonly kind: 'answer'; readonly used: number; readonly bytes: Uint8Array }
  | { readonly kind: 'target'; readonly used: number; readonly host: string; readonly port: number }
  | {
      readonly kind: 'refuse'
      readonly used: number
      readonly why: Refusal
      readonly text: string
      /** undefined: as Protocol.answer */
      readonly bytes?: Uint8Array
    }

export const MORE: Step = { kind: 'more' }

/** Checks credentials. */
export type UserCheck = (name: Uint8Array, password: Uint8Array) => boolean

/** The request of one connection. */
export interface Protocol {
  /** Longest part that is waited for, bytes. */
  readonly limit: number
  /**
   * Reads the bytes that arrived and are not used.
   * @param from bytes before were there at the last call
   */
  next(bytes: Uint8Array, from: number): Step
  /** The answer of success, or that a target is not served; empty: the connection is just ended. */
  answer(why: Refusal | undefined, text: string): Uint8Array
}

/** A host of letters, digits, dots and the like, or an IP literal: no zone, nothing that a log would show as control. */
export const isHost = (host: string): boolean => /^[\w.:-]{1,255}$/.test(host)
