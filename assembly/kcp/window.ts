/*
 * The receive window (protocol.md 5.9: its size is ours to choose). Fixed if the user set `rcvwnd`; else it grows with
 * what the peer sends and the application takes.
 *
 * No estimate of the RTT is needed: a peer that fills a quarter of the window within a second gets twice as much. The
 * window is a promise; memory is used only by holes and slow readers.
 */
import { TICKS_PER_SECOND, UNSET } from '../abi'
import { Conversation, MAX_WND, optionRcvWnd } from './conversation'

const INITIAL_WND: u32 = 1024
const LOOK_TICKS: u32 = TICKS_PER_SECOND

export function openRecvWindow(c: Conversation, now: u32): void {
  const isFixed = optionRcvWnd != UNSET
  c.rcvWnd = isFixed ? optionRcvWnd : INITIAL_WND
  c.rcvCeiling = isFixed ? 0 : MAX_WND
  c.rcvEdge = c.rcvWnd
  c.rcvLookAt = now
}

/**
 * To be called when rcvNxt moved or something came early. `share`: segments this conversation may claim of the memory.
 */
export function growRecvWindow(c: Conversation, share: u32, now: u32): void {
  if (c.rcvCeiling == 0) return
  const early = c.rcvTop - c.rcvNxt
  const isFull = early > c.rcvWnd / 2
  if (c.rcvNxt - c.rcvLookNxt < c.rcvWnd / 4 && !isFull) return
  const isFast = now - c.rcvLookAt <= LOOK_TICKS || isFull
  const keepsUp = c.rcvNxt - c.rcvRead < c.rcvWnd / 4
  if (isFast && keepsUp) c.rcvWnd = max(c.rcvWnd, min(c.rcvWnd * 2, min(c.rcvCeiling, share)))
  c.rcvLookNxt = c.rcvNxt
  c.rcvLookAt = now
}
