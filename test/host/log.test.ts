/** The log as written: levels, letters, outputs, rate-limited repeats (protocol.md 10.6). Time is virtual. */

import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { formatTimestamp } from '../../host/format.ts'
import {
  LOG_DEBUG,
  LOG_ERROR,
  LOG_FATAL,
  LOG_INFO,
  LOG_NOTICE,
  LOG_SILENCE,
  LOG_VERBOSE,
  LOG_VERY_VERBOSE,
  LOG_WARNING,
  Log,
} from '../../host/log/log.ts'

const test = suite('log')

const START = Date.UTC(2026, 10, 22, 11, 10, 8)

function setUp() {
  const lines: { stream: string; text: string }[] = []
  const clock = { ms: START }
  const log = new Log(
    (stream, text) => lines.push({ stream, text }),
    () => new Date(clock.ms),
  )
  const texts = () => lines.map(({ text }) => text.trimEnd().split(' ').slice(2).join(' '))
  return { lines, clock, log, texts }
}

test('a line is letter, time and text, on stdout by default', () => {
  const { lines, log } = setUp()
  log.notice('udp bind: 127.0.0.1:35000')
  assert.equal(lines, [{ stream: 'stdout', text: `I ${formatTimestamp(new Date(START))} udp bind: 127.0.0.1:35000\n` }])
})

test('every level has its letter', () => {
  const { lines, log } = setUp()
  log.setLevel(LOG_VERY_VERBOSE)
  const levels = [LOG_FATAL, LOG_ERROR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG, LOG_VERBOSE, LOG_VERY_VERBOSE]
  for (const level of levels) {
    log.write(level, 'x')
  }
  assert.is(lines.map(({ text }) => text.charAt(0)).join(''), 'FEWIIDVV')
  assert.equal(levels, [1, 2, 3, 4, 5, 6, 7, 8])
})

test('each method writes at its level', () => {
  const { lines, log } = setUp()
  const write = () => {
    log.fatal('x')
    log.error('x')
    log.warning('x')
    log.notice('x')
    log.info('x')
    log.debug('x')
    log.verbose('x')
  }
  const counts: number[] = []
  for (let level = 0; level <= 8; level += 1) {
    lines.length = 0
    log.setLevel(level)
    write()
    counts.push(lines.length)
    assert.is(lines.map(({ text }) => text.charAt(0)).join(''), level === 0 ? 'x' : 'FEWIIDV'.slice(0, level))
  }
  // at level 0 the fatal line is printed all the same
  assert.equal(counts, [1, 1, 2, 3, 4, 5, 6, 7, 7])
})

test('the level is 4 by default and clamped, and at() returns whether a level is written', () => {
  const { log } = setUp()
  assert.is(log.level, LOG_NOTICE)
  assert.equal(
    [LOG_NOTICE, LOG_INFO].map((level) => log.at(level)),
    [true, false],
  )
  log.setLevel(99)
  assert.is(log.level, LOG_VERY_VERBOSE)
  log.setLevel(-1)
  assert.is(log.level, LOG_SILENCE)
  assert.not(log.at(LOG_FATAL))
  assert.not(log.at(LOG_SILENCE))
})

test('each output writes to its stream', () => {
  const { lines, log } = setUp()
  for (const name of ['stdout', 'stderr', 'terminal', 'discard', 'stdout']) {
    log.setOutput(name)
    log.error(name)
  }
  assert.equal(
    lines.map(({ stream }) => stream),
    ['stdout', 'stderr', 'stderr', 'stdout'],
  )
  const coloured = lines[2]?.text ?? ''
  assert.ok(coloured.startsWith('\u001b[31mE ') && coloured.endsWith(' terminal\u001b[0m\n'), coloured)
  assert.not.match(lines[1]?.text ?? '', '\u001b')
})

test('with discard, at() is false and no text is built', () => {
  const { log } = setUp()
  log.setOutput('discard')
  assert.not(log.at(LOG_FATAL))
  log.limited('x', LOG_FATAL, () => {
    throw new Error('built')
  })
})

test('an unknown output changes nothing and logs a warning to the current output', () => {
  const { lines, log } = setUp()
  log.setOutput('stderr')
  for (const name of ['', 'file', 'toString']) {
    log.setOutput(name)
  }
  assert.is(lines.length, 3)
  assert.ok(
    lines.every(({ stream, text }) => stream === 'stderr' && text.startsWith('W ') && text.includes('not changed')),
  )
})

test('syslog falls back to stderr with one warning', () => {
  const { lines, log } = setUp()
  log.setOutput('syslog')
  log.setOutput('syslog')
  log.notice('x')
  assert.equal(
    lines.map(({ stream, text }) => stream + text.charAt(0)),
    ['stderrW', 'stderrI'],
  )
})

test('syslog receives the level and the bare text, and is opened once', () => {
  const written: string[] = []
  const printed: string[] = []
  let opened = 0
  const log = new Log(
    (stream, text) => printed.push(`${stream} ${text}`),
    () => new Date(START),
    () => {
      opened += 1
      return (level, text) => written.push(`${level} ${text}`)
    },
  )
  for (let i = 0; i < 2; i++) {
    log.setOutput('syslog')
    log.warning('a\nb')
  }
  log.debug('not at this level')
  assert.equal([opened, written], [1, [`${LOG_WARNING} a\\x0ab`, `${LOG_WARNING} a\\x0ab`]])
  assert.equal(printed, [])
  log.fatal('the\nreason')
  assert.equal(printed, ['stderr the\\x0areason\n'])
})

test('a daemon writes to syslog instead of stdout and stderr, also after a reload, and still discards', () => {
  const lines: string[] = []
  const written: string[] = []
  const log = new Log(
    (_, text) => lines.push(text),
    () => new Date(START),
    () => (_, text) => written.push(text),
  )
  log.notice('before')
  log.detach()
  for (const name of ['stdout', 'stderr', 'terminal', 'syslog', 'discard', 'stdout']) {
    log.setOutput(name)
    log.notice(name)
  }
  assert.is(lines.length, 1)
  assert.equal(written, ['stdout', 'stderr', 'terminal', 'syslog', 'stdout'])
})

test('lines that an output does not take are counted, and the count precedes the next line', () => {
  for (const output of ['stdout', 'terminal', 'syslog']) {
    const lines: string[] = []
    let isBusy = false
    const take = (_: unknown, text: string): boolean => {
      if (!isBusy) lines.push(text)
      return !isBusy
    }
    const log = new Log(
      take,
      () => new Date(START),
      () => take,
    )
    log.setOutput(output)
    log.notice('a')
    isBusy = true
    for (let i = 0; i < 3; i++) log.notice('b')
    isBusy = false
    for (const text of ['c', 'd']) log.notice(text)
    const patterns = [/a/, /3 log lines were dropped: the reader of the log did not take them/, /c/, /d/]
    assert.is(lines.length, patterns.length, output)
    for (const [index, pattern] of patterns.entries()) assert.match(lines[index] ?? '', pattern)
    assert.is(log.recent.length, 1, 'the dashboard shows it')
  }
})

test('the count of dropped lines is logged without a further line; the pauses between attempts grow', () => {
  const lines: string[] = []
  const timers: { callback: () => void; ms: number }[] = []
  let isBusy = true
  const log = new Log(
    (_, text) => {
      if (!isBusy) lines.push(text)
      return !isBusy
    },
    () => new Date(START),
    undefined,
    (callback, ms) => timers.push({ callback, ms }),
  )
  for (let i = 0; i < 100; i++) log.notice('x')
  assert.is(timers.length, 1, 'one timer')
  for (let i = 0; i < 10; i++) timers.at(-1)?.callback()
  assert.equal(
    timers.map(({ ms }) => ms),
    [1000, 2000, 4000, 8000, 16000, 32000, 64000, 64000, 64000, 64000, 64000],
  )
  isBusy = false
  timers.at(-1)?.callback()
  assert.is(timers.length, 11, 'no timer is left')
  assert.is(lines.length, 1)
  assert.match(lines[0] ?? '', / 100 log lines were dropped/)
})

test('control characters cannot break a line or reach the terminal', () => {
  const { lines, log } = setUp()
  log.notice('a\nF fake\r\u001b[31m\u0000\u007f\u009bé')
  assert.match(lines[0]?.text ?? '', / a\\x0aF fake\\x0d\\x1b\[31m\\x00\\x7f\\x9bé\n$/)
})

test('repeats of a key are limited to one a second, and the next line counts the suppressed ones', () => {
  const { clock, log, texts } = setUp()
  for (let index = 0; index < 5; index += 1) {
    log.limited('udp send', LOG_WARNING, `a${index}`)
    log.limited('other', LOG_WARNING, `b${index}`)
    clock.ms += 199
  }
  clock.ms = START + 999
  log.limited('udp send', LOG_WARNING, 'a5')
  assert.equal(texts(), ['a0', 'b0'])
  clock.ms = START + 1000
  log.limited('udp send', LOG_WARNING, 'a6')
  log.limited('udp send', LOG_WARNING, 'a7')
  clock.ms = START + 2000
  log.limited('udp send', LOG_WARNING, 'a8')
  clock.ms = START + 3000
  log.limited('udp send', LOG_WARNING, 'a9')
  assert.equal(texts().slice(2), ['a6 (similar lines suppressed: 5)', 'a8 (similar lines suppressed: 1)', 'a9'])
})

test('a limited text is built only when it is written', () => {
  const { log, texts } = setUp()
  let built = 0
  const text = () => {
    built += 1
    return 'x'
  }
  log.limited('k', LOG_DEBUG, text)
  assert.is(built, 0)
  log.limited('k', LOG_WARNING, text)
  log.limited('k', LOG_WARNING, text)
  assert.is(built, 1)
  assert.equal(texts(), ['x'])
})

test('a clock that is set back does not suppress a key', () => {
  const { clock, log, texts } = setUp()
  log.limited('k', LOG_WARNING, 'before')
  clock.ms -= 3_600_000
  log.limited('k', LOG_WARNING, 'after')
  log.limited('k', LOG_WARNING, 'again')
  assert.equal(texts(), ['before', 'after'])
})

test('the number of remembered keys is limited, and the oldest are dropped first', () => {
  const { log, texts } = setUp()
  for (let index = 0; index <= 256; index += 1) {
    log.limited(`key ${index}`, LOG_WARNING, `text ${index}`)
  }
  assert.is(texts().length, 257)
  log.limited('key 1', LOG_WARNING, 'remembered')
  assert.is(texts().length, 257)
  log.limited('key 0', LOG_WARNING, 'forgotten')
  assert.is(texts().length, 258)
})

/** The objects parsed from JSON lines. */
function objects(lines: readonly { text: string }[]): unknown[] {
  return lines.map(({ text }) => {
    assert.ok(text.endsWith('}\n') && text.indexOf('\n') === text.length - 1, `one line: ${text}`)
    return JSON.parse(text)
  })
}

test('in JSON format a line is an object with time, level and text', () => {
  const { lines, clock, log } = setUp()
  log.setFormat('json')
  log.setLevel(LOG_VERY_VERBOSE)
  clock.ms += 7
  log.notice('udp bind: 127.0.0.1:35000')
  for (const output of ['stderr', 'terminal', 'discard']) {
    log.setOutput(output)
    log.write(LOG_VERY_VERBOSE, 'x')
  }
  const time = '2026-11-22T11:10:08.007Z'
  assert.equal(objects(lines), [
    { time, level: 'notice', text: 'udp bind: 127.0.0.1:35000' },
    { time, level: 'very verbose', text: 'x' },
    { time, level: 'very verbose', text: 'x' },
  ])
  assert.equal(
    lines.map(({ stream }) => stream),
    ['stdout', 'stderr', 'stderr'],
  )
})

test('in JSON format any text round-trips, and no control character is written', () => {
  const { lines, log } = setUp()
  log.setFormat('json')
  const texts = [
    '"quotes" \\ back',
    'a\nb\r\u0000\u001b[31m',
    '\u007f\u0085\u009b',
    '\u2028 ü 漢 \ud83d\ude00',
    '\ud800',
  ]
  for (const text of texts) log.error(text)
  assert.equal(
    objects(lines),
    texts.map((text) => ({ time: '2026-11-22T11:10:08.000Z', level: 'error', text })),
  )
  for (const { text } of lines) assert.not.match(text.trimEnd(), /\p{Cc}/u)
})

test('in JSON format a line names the user of a session, if the text does', () => {
  const { lines, log } = setUp()
  log.setFormat('json')
  log.notice('[session:07C3522B al-i_ce.2] session opened')
  log.notice('[session:07C3522B] session opened')
  const fields = objects(lines) as { session: string; user?: string }[]
  assert.equal(
    fields.map(({ session, user }) => [session, user]),
    [
      ['07C3522B', 'al-i_ce.2'],
      ['07C3522B', undefined],
    ],
  )
})

test('in JSON format a line names the session and the peer of its text', () => {
  const { lines, log } = setUp()
  log.setFormat('json')
  const cases = [
    ['[session:07C3522B] session closed', '07C3522B', undefined],
    ['[session:07C3522B] peer moved from 10.0.0.1:5 to 10.0.0.2:6', '07C3522B', '10.0.0.2:6'],
    ['[session:07C3522B] peer moved to [fe80::1%2]:6', '07C3522B', '[fe80::1%2]:6'],
    ['no answer from [::1]:53: the peer is down', undefined, '[::1]:53'],
    ['rendezvous: peer found at 10.0.0.2:6', undefined, '10.0.0.2:6'],
    ['connected: 10.0.0.2:6 answers in 52 ms', undefined, '10.0.0.2:6'],
    ['connected: rendezvous server [::1]:6 answers in 52 ms', undefined, '[::1]:6'],
    ['waiting for 10.0.0.2:6', undefined, '10.0.0.2:6'],
    ['10.0.0.2:6 refuses: no server listens on that UDP port; retrying', undefined, '10.0.0.2:6'],
    ['[session:07C3522B] dial failed: 10.0.0.9:80 refuses the connection (ECONNREFUSED)', '07C3522B', undefined],
    ['3 packets failed authentication from 10.0.0.2:6 (wrong key or method?)', undefined, '10.0.0.2:6'],
    ['udp bind: 10.0.0.2:6', undefined, undefined],
    ['the text [session:07C3522B] came from elsewhere', undefined, undefined],
  ] as const
  for (const [text] of cases) log.notice(text)
  const time = '2026-11-22T11:10:08.000Z'
  assert.equal(
    objects(lines),
    cases.map(([text, session, peer]) => ({
      time,
      level: 'notice',
      text,
      ...(session && { session }),
      ...(peer && { peer }),
    })),
  )
})

test('syslog lines keep the plain format', () => {
  const written: string[] = []
  const log = new Log(
    () => undefined,
    () => new Date(START),
    () => (_level, text) => void written.push(text),
  )
  log.setFormat('json')
  log.setOutput('syslog')
  log.notice('a\tb')
  assert.equal(written, ['a\\x09b'])
})

test('the last lines of level warning or worse are kept, shortened, whether or not they are written', () => {
  const { lines, clock, log } = setUp()
  log.setOutput('discard')
  log.notice('not this')
  for (let i = 0; i < 40; i++) {
    clock.ms = START + i
    log.write(i % 2 === 0 ? LOG_WARNING : LOG_ERROR, `line ${i}`)
  }
  log.setLevel(LOG_FATAL)
  log.warning('x'.repeat(5000))
  assert.is(lines.length, 0)
  assert.is(log.recent.length, 32)
  assert.is(log.remembered, 41)
  assert.equal(log.recent[0], { at: START + 9, level: LOG_ERROR, text: 'line 9' })
  const last = log.recent.at(-1)
  assert.is(last?.level, LOG_WARNING)
  assert.ok((last?.text.length ?? 0) < 500)
})

test.run()
