/** The explanations behind the "?" of a figure: one note, which the button of the figure opens and closes. */
import { byId, make, setText } from './dom.ts'

/** By the title of the figure. */
const TEXTS: Readonly<Record<string, string>> = {
  Receiving:
    'Bytes that the tunnel handed to applications, per second. Below: the same with headers, encryption and ' +
    'retransmissions, as the network sees it, and the total since the start.',
  Sending:
    'Bytes that the tunnel took from applications, per second. Below: the same with headers, encryption and ' +
    'retransmissions, as the network sees it, and the total since the start.',
  'Round trip':
    'From sending a packet to its acknowledgement, of the most active session, otherwise of the last ping. When it ' +
    'grows with the load, packets wait in a queue on the path.',
  Loss:
    'Share of the segments of the last 10 seconds that were sent again because they counted as lost. Segments that ' +
    'are sent twice on purpose are not in it: see Duplicates in the details.',
  Throughput:
    'Received above the axis, sent below. Areas: payload; dotted: with everything that the network carries. The program ' +
    'remembers 15 minutes; on red ground the peer did not answer.',
  'Round trip and losses':
    'A round trip that rises before losses come: the path has a queue that the tunnel fills. Losses at a steady round ' +
    'trip: the path drops packets whatever is sent.',
  'Window and queue':
    'Window: segments that may be on their way unacknowledged, of the most active session. Queue: segments of all sessions ' +
    'that wait to be sent or acknowledged. A segment is one packet of payload.',
  Sessions:
    'Each TCP connection is a session. Application: who connected to the client. Target: what the server connected it to. ' +
    'Queue, window and losses count segments. Closed sessions are kept for a while so that late packets are recognized.',
  Users: 'Each key of the server, with what came and went under it since the start.',
  Obfuscator: 'Pairs of addresses and ports that look like one TCP connection to the network.',
  Queue: 'Segments of all sessions that wait to be sent or acknowledged.',
  Window: 'How many segments the most active session may have on their way unacknowledged.',
  Pacing: 'The rate at which the most active session may send: what the path is thought to take.',
  CPU: 'Of one core, by the whole process. 100 % is one core in full.',
  'Engine memory': 'What the protocol engine uses for sessions and their data. The key memory limits it.',
  'Process memory': 'Resident memory (RSS) of the program with its runtime, as top and ps show it.',
  Path: 'Rate times round trip is what must be on the way at once to keep this rate. Loss here is the part that does not depend on the load.',
  Duplicates:
    'Small segments that nothing follows are sent twice, so that the loss of one costs no time. Received twice: what came ' +
    'more than once, from duplicates and from retransmissions that were not needed.',
  'Rate limit': 'What the keys below rate allow, and for how long data waited for that.',
  Rejected: 'Datagrams that were thrown away before they could do anything.',
}

const GAP_PX = 8

let opener: HTMLElement | undefined

function close(): void {
  opener?.setAttribute('aria-expanded', 'false')
  opener?.removeAttribute('aria-describedby')
  opener = undefined
  byId('help').hidden = true
}

function open(button: HTMLElement, text: string): void {
  close()
  const note = byId('help')
  setText(note, text)
  note.hidden = false
  opener = button
  button.setAttribute('aria-expanded', 'true')
  button.setAttribute('aria-describedby', 'help')
  const at = button.getBoundingClientRect()
  const { offsetWidth, offsetHeight } = note
  const { clientWidth, clientHeight } = document.documentElement
  const left = Math.max(GAP_PX, Math.min(at.left - 16, clientWidth - offsetWidth - GAP_PX))
  const isBelow = at.bottom + GAP_PX + offsetHeight <= clientHeight || at.top < offsetHeight + GAP_PX
  note.style.left = `${left + scrollX}px`
  note.style.top = `${(isBelow ? at.bottom + GAP_PX : at.top - GAP_PX - offsetHeight) + scrollY}px`
}

/** Adds a "?" to the element with the title of a figure, if there is an explanation. */
export function explain(place: Element, title = place.textContent ?? ''): void {
  const text = TEXTS[title]
  if (text === undefined) return
  const button = make('button', 'why', '?')
  button.setAttribute('type', 'button')
  button.setAttribute('aria-label', `What is ${title}?`)
  button.setAttribute('aria-expanded', 'false')
  button.addEventListener('click', () => (opener === button ? close() : open(button, text)))
  button.addEventListener('blur', () => {
    if (opener === button) close()
  })
  place.append(button)
}

/** Adds the explanations of the headings of the page. */
export function explainHeadings(): void {
  for (const heading of document.querySelectorAll('.all h2')) {
    const { textContent } = heading
    // beside the heading, which names its section
    const row = make('div', 'title')
    heading.replaceWith(row)
    row.append(heading)
    explain(row, textContent ?? '')
  }
  document.addEventListener('keydown', ({ key }) => {
    if (key === 'Escape') close()
  })
  document.addEventListener('pointerdown', ({ target }) => {
    if (target instanceof Element && target.closest('.why, #help') === null) close()
  })
  addEventListener('resize', close)
}
