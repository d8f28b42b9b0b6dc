/** The screen of `top` and its numbers, computed from two documents of /stats.json. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { cut, formatAge, frame, type Style, sorted, sparkline, type View } from '../../host/cli/top/frame.ts'
import { ratesOf, readHistory, readSample } from '../../host/cli/top/sample.ts'
import { keyAction } from '../../host/cli/top/top.ts'

const test = suite('top')

const PLAIN: Style = { color: false, blocks: true, keys: true }
const COLOR: Style = { ...PLAIN, color: true }

/** A document of /stats.json, `seconds` after the start, with `count` sessions; session i moved i * `bytes` a second. */
function statistics(seconds: number, count: number, bytes = 1000) {
  return {
    version: 1,
    program: { name: 'kcptun-wasm', version: '0.1.0', runtime: 'node', runtime_version: '20.0.0', mode: 'client' },
    uptime_ms: seconds * 1000,
    cpu_ms: seconds * 50,
    ready: true,
    health: 'healthy (peer seen 1s ago)',
    counters: {
      tcp_written_bytes: seconds * 1_000_000,
      tcp_read_bytes: seconds * 10_000,
      pkt_received_bytes: seconds * 1_100_000,
      pkt_sent_bytes: seconds * 20_000,
      segments_sent: seconds * 120,
      segments_redundant: seconds * 20,
      segments_retransmitted: seconds * 5,
    },
    gauges: { sessions_established: count, sessions_time_wait: 2, waitsnd: 7, memory_used: 4096 },
    sessions: Array.from({ length: count }, (_, i) => ({
      conv: i.toString(16).toUpperCase().padStart(8, '0'),
      state: 'established',
      peer: '192.0.2.1:4000',
      tcp_peer: i === 0 ? '[2001:db8:1234:5678:9abc:def0:1234:5678]:12345' : `203.0.113.${i}:12345`,
      age_seconds: seconds,
      idle_seconds: 0,
      rtt_ms: 100 - i,
      waitsnd_segments: i % 3,
      retransmitted_segments: i,
      tcp_read_bytes: 0,
      tcp_written_bytes: seconds * bytes * i,
    })),
  }
}

function viewOf(count: number, change: Partial<View> = {}): View {
  const before = readSample(statistics(10, count))
  const sample = readSample(statistics(12, count))
  const history = Array.from({ length: 300 }, (_, i) => i)
  const rates = ratesOf(before, sample)
  const base = { url: 'http://127.0.0.1:1/stats.json', sample, rates, received: history, sent: [], trouble: undefined }
  return { ...base, order: 'rate', offset: 0, ...change }
}

test('rates refer to the time between two documents', () => {
  const rates = ratesOf(readSample(statistics(10, 3)), readSample(statistics(12, 3)))
  assert.is(rates.received, 1_000_000)
  assert.is(rates.sent, 10_000)
  assert.is(rates.wireReceived, 1_100_000)
  assert.is(rates.loss, 0.05)
  assert.is(rates.cpu, 0.05)
  assert.is([...rates.sessions.values()][2]?.received, 2000)
})

test('the first document and a restart of the program yield zero rates', () => {
  assert.is(ratesOf(undefined, readSample(statistics(10, 1))).received, 0)
  assert.is(ratesOf(readSample(statistics(10, 1)), readSample(statistics(2, 1))).received, 0)
})

test('anything but statistics is rejected, missing names are accepted', () => {
  assert.throws(() => readSample('<html>'), /not a statistics document/)
  assert.throws(() => readSample({ version: 2 }), /version 2/)
  assert.is(readSample({ version: 1 }).sessions.length, 0)
  assert.is(readSample({ version: 1, health: 'a\x1b[2Jb' }).health, 'a?[2Jb', 'the peer cannot move the cursor')
})

test('no line is wider and no screen higher than the terminal, from 1x1 to 250x70', () => {
  for (const columns of [1, 2, 9, 20, 33, 40, 60, 79, 80, 81, 120, 250]) {
    for (const rows of [1, 2, 5, 8, 10, 24, 70]) {
      for (const count of [0, 1, 100]) {
        for (const trouble of [undefined, `no answer ${'x'.repeat(100)}`]) {
          const lines = frame(viewOf(count, { trouble }), columns, rows, PLAIN)
          assert.ok(lines.length <= rows, `${lines.length} lines in ${rows} rows`)
          for (const line of lines) assert.ok(line.length <= columns, `${columns} columns: ${JSON.stringify(line)}`)
        }
      }
    }
  }
})

test('80x24 shows everything that matters', () => {
  const text = frame(viewOf(40), 80, 24, PLAIN).join('\n')
  for (const part of [
    /^kcptun-wasm 0\.1\.0 client, node 20\.0\.0, up 12s +healthy \(peer seen 1s ago\)$/m,
    /^receiving +8\.00 Mbit\/s [▁-█]{58}$/m,
    /wire 8\.80 Mbit\/s, 160 kbit\/s {3}rtt 81 ms {3}loss 5\.00 %/,
    /sent twice on purpose 20\.0 % {3}queue 7 segments {3}engine 4\.00 KiB/,
    /^42 sessions: 40 established, 2 time_wait$/m,
    /^CONV +STATE +APPLICATION +AGE +RTT +RECEIVING +SENDING$/m,
    /^00000027 established 203\.0\.113\.39:12345 +12s +61 +312 kbit\/s +0 bit\/s$/m,
    /^q quit {3}s sort order: rate {3}arrows scroll$/m,
  ]) {
    assert.match(text, part)
  }
  assert.is(frame(viewOf(40), 80, 24, PLAIN).length, 24)
})

test('a stream says more: what is wrong with the link, memory, addresses, and that not all sessions are listed', () => {
  const session = (i: number, state: string) => ({ ...statistics(1, 1).sessions[0], conv: `C${i}`, state })
  const document = {
    ...statistics(12, 0),
    rss_bytes: 90 * 1024 * 1024,
    link: { state: 'silent', silent_ms: 17_000, problem: null },
    gauges: { sessions_established: 70, sessions_time_wait: 5, memory_used: 4096 },
    sessions: [{ ...session(1, 'established'), tcp_peer: '192.0.2.7:40000' }, session(2, 'time_wait')],
  }
  const shown = (change: object): string =>
    frame(viewOf(0, { sample: readSample({ ...document, ...change }) }), 130, 24, PLAIN).join('\n')
  const text = shown({})
  assert.match(text, /^kcptun-wasm .* no answer for 17 s$/m)
  assert.match(text, /process 90\.0 MiB/)
  assert.match(text, /^75 sessions: 70 established, 5 time_wait, the 1 liveliest are listed$/m)
  assert.match(text, /^C1 +established +192\.0\.2\.7:40000 +192\.0\.2\.1:4000 /m)
  const server = shown({ program: { ...document.program, mode: 'server' } })
  assert.match(server, /^CONV +STATE +PEER +TARGET +AGE/m)
  assert.match(server, /^C1 +established +192\.0\.2\.1:4000 +192\.0\.2\.7:40000 /m)
  assert.not.match(text, /^C2/m)
  assert.match(shown({ link: { state: 'checking', problem: 'refused' } }), /refused: no server listens there$/m)
  assert.match(shown({ link: { state: 'up', problem: 'refused' } }), /healthy/)
})

test('several servers have a line each, with the tunnel where there are several', () => {
  const servers = [
    {
      server: 'one.example:4000',
      address: null,
      state: 'up',
      since_seconds: 3700,
      rtt_ms: 51.2,
      sessions: 7,
      used: true,
    },
    {
      server: '[2001:db8::1]:4000',
      address: null,
      state: 'down',
      since_seconds: 4,
      rtt_ms: null,
      sessions: 0,
      used: false,
    },
  ]
  const shown = (document: object, style = PLAIN): string =>
    frame(viewOf(0, { sample: readSample({ ...statistics(12, 1), ...document }) }), 100, 24, style).join('\n')
  const text = shown({ servers })
  assert.match(text, /^SERVER +OPEN +RTT +SINCE STATE *$/m)
  assert.match(text, /^one\.example:4000 +7 +51(\.2)? +1h01 up, in use$/m)
  assert.match(text, /^\[2001:db8::1\]:4000 +0 +- +4s down$/m)
  assert.ok(shown({ servers }, COLOR).includes('\x1b[31m[2001:db8::1]'), 'what is down stands out')
  const program = { ...statistics(1, 1).program, mode: 'tunnels' }
  const several = shown({ program, tunnels: [{ name: 'ssh', servers }, { name: 'db' }] })
  assert.match(several, /^TUNNEL +SERVER +OPEN/m)
  assert.match(several, /^ssh +one\.example:4000 +7 /m)
  assert.not.match(shown({}), 'SERVER')
  const narrow = viewOf(0, {
    sample: readSample({ ...statistics(12, 1), program, tunnels: [{ name: 'ssh', servers }] }),
  })
  assert.match(frame(narrow, 80, 24, PLAIN).join('\n'), /^ssh .* up, in use$/m)
})

test('the sparklines begin with the history of the program', () => {
  const hello = {
    history: {
      since: 1000,
      columns: ['time', 'tcp_read_bytes', 'tcp_written_bytes'],
      rows: [
        [990, 5, 5],
        [1001, 7, 8],
        [1003, 1, 2],
      ],
    },
  }
  assert.equal(readHistory(hello, 1005.5, 100), { received: [0, 8, 0, 2, 0], sent: [0, 7, 0, 1, 0] })
  assert.equal(readHistory(hello, 1005.5, 2), { received: [2, 0], sent: [1, 0] })
  assert.equal(readHistory({}, 1005, 100), { received: [], sent: [] })
})

test('a narrow terminal keeps the rates', () => {
  const text = frame(viewOf(3), 40, 12, PLAIN).join('\n')
  assert.match(text, /^CONV .*RECEIVING +SENDING/m)
  assert.not.match(text, /APPLICATION|PEER/)
})

test('sessions are sorted by rate or by the chosen order, and scroll', () => {
  const { sample, rates } = viewOf(20)
  if (sample === undefined) throw new Error('no sample')
  assert.is(sorted(sample, rates, 'rate')[0]?.conv, '00000013')
  assert.is(sorted(sample, rates, 'rtt')[0]?.conv, '00000000')
  assert.is(sorted(sample, rates, 'queue')[0]?.conv, '00000002')
  assert.is(sorted(sample, rates, 'lost')[0]?.conv, '00000013')
  const scrolled = frame(viewOf(20, { offset: 5 }), 80, 24, PLAIN)
  assert.match(scrolled.join('\n'), /, from #6/)
  assert.match(scrolled.find((line) => /^0000/.test(line)) ?? '', /^0000000E/)
})

test('colours are used only when enabled, and always reset', () => {
  assert.not.ok(frame(viewOf(3), 80, 24, PLAIN).join('\n').includes('\x1b'))
  const colored = frame(viewOf(3), 80, 24, COLOR).join('\n')
  assert.ok(colored.includes('\x1b[7mCONV'))
  assert.is(colored.split('\x1b[0m').length * 2 - 1, colored.split('\x1b[').length, 'each code has its end')
})

test('a sparkline shows the newest values, scaled to the largest', () => {
  assert.is(sparkline([0, 1, 2, 4, 8], 4), '▂▃▅█')
  assert.is(sparkline([0, 0], 10), '▁▁')
  assert.is(sparkline([1, 8], 10, false), '.#')
  assert.is(sparkline([], 10), '')
  assert.is(sparkline([1, 2], -3), '')
})

test('texts and ages are cut to their width', () => {
  assert.is(cut('abcdef', 4), 'abc~')
  assert.is(cut('abc', 0), '')
  assert.equal([5, 65, 3600, 7500, 90_000].map(formatAge), ['5s', '1m', '1h00', '2h05', '1d'])
})

test('keys map to actions', () => {
  assert.is(keyAction('q', 24), 'quit')
  assert.is(keyAction('\x03', 24), 'quit')
  assert.is(keyAction('s', 24), 'order')
  assert.is(keyAction('\x1b[B', 24), 1)
  assert.is(keyAction('\x1b[5~', 24), -24)
  assert.is(keyAction('x', 24), undefined)
})

test.run()
