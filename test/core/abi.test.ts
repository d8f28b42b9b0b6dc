/**
 * assembly/abi.json matches the module: exports and their arguments, the offsets of config fields, counters and
 * descriptors, codes, ranges and defaults. abi-contract.test.ts covers the rest of docs/abi.md.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { coreConfig } from '../../host/engine/config-block.ts'
import { Core, type CoreConfig, type CounterName, instantiate } from '../../host/engine/core.ts'
import { skip } from '../skip.ts'

interface ConfigEntry {
  min: number
  max: number
  values?: number[]
  unset?: boolean
  default?: number
}
const abi: {
  version: number
  constants: Record<string, { value: number }>
  enums: Record<string, { values: Record<string, { value: number }> }>
  structs: Record<string, { bytes: number; fields: Record<string, { offset: number }> }>
  config: Record<string, ConfigEntry>
  counters: Record<string, object>
  calls: Record<string, { args: string[] }>
} = JSON.parse(readFileSync('assembly/abi.json', 'utf8'))

const test = suite('abi.json')
const UNSET = 0xffffffff

/** A client without encryption. */
const GOOD: Record<string, number> = {
  mode: 2,
  tagBytes: 0,
  nonceBytes: 0,
  nonceStrategy: 0,
  kcpMtu: 1372,
  sndwnd: UNSET,
  rcvwnd: UNSET,
  nodelay: UNSET,
  interval: UNSET,
  resend: UNSET,
  nc: UNSET,
  flush: UNSET,
  timeout: 60,
  linger: 5,
  keepalive: 25,
  timeWait: 5,
  memoryCeiling: 64 << 20,
  maxSessions: 16,
  replayCapacity: 0,
  maxHalfOpen: 0,
  confirm: 0,
  sendOnce: 0,
  searchMtu: 0,
}

/** @returns the result of `configure` with one field changed */
function configured(name?: string, value = 0): number {
  const calls = instantiate()
  const core = new Core(calls)
  core.fillEntropy()
  const fields = { ...GOOD, ...(name === undefined ? {} : { [name]: value }) }
  const names = Object.keys(abi.config)
  for (const [index, field] of names.entries()) core.u32[(calls.config_ptr() >>> 2) + index] = fields[field] ?? 0
  return calls.configure(0)
}

test('the generated files are up to date', () => {
  execFileSync(process.execPath, ['build/abi.mjs', '--check'], { stdio: 'pipe' })
})

test('the module exports exactly the listed calls, with the listed number of arguments', () => {
  const { memory, ...calls } = instantiate()
  assert.ok(memory)
  const exported = Object.entries(calls).map(([name, call]) => [name, call.length])
  const listed = Object.entries(abi.calls).map(([name, { args }]) => [name, args.length])
  assert.equal(exported.sort(), listed.sort())
  assert.is(calls.abi_version(), abi.version)
  const bits = Object.values(abi.enums['Capability']?.values ?? {}).reduce((sum, { value }) => sum + value, 0)
  assert.is(calls.capabilities(), bits)
})

test('slot counts and block sizes match the module', () => {
  const calls = instantiate()
  const { RX_SLOTS, TX_SLOTS, EVENT_SLOTS, SPAN_SLOTS, ENTROPY_BYTES, IO_BYTES } = abi.constants
  assert.is(calls.rx_slots(), RX_SLOTS?.value)
  assert.is(calls.tx_slots(), TX_SLOTS?.value)
  assert.is(calls.event_slots(), EVENT_SLOTS?.value)
  assert.is(calls.span_slots(), SPAN_SLOTS?.value)
  assert.is(calls.entropy_capacity(), ENTROPY_BYTES?.value)
  assert.is(calls.io_capacity(), IO_BYTES?.value)
})

for (const [index, [name, { min, max, values, unset }]] of Object.entries(abi.config).entries()) {
  test(`config field ${index} is ${name}, and its range is ${values?.join(', ') ?? `${min}..${max}`}`, () => {
    const refused = -(100 + index)
    assert.is(configured(), 0)
    // 0xffffffff is valid only for fields that may be unset
    assert.is(configured(name, UNSET), unset ? 0 : refused)
    if (min > 0) assert.is(configured(name, min - 1), refused)
    assert.is(configured(name, max + 1), refused)
    for (const value of values ?? [min, max]) {
      // mode and nonceStrategy also depend on other fields; values above 1 GiB exceed the memory of a test machine
      if (name === 'mode' || name === 'nonceStrategy' || value > 1 << 30) continue
      assert.is(configured(name, value), 0, `${value}`)
    }
  })
}

test('the listed defaults match those of a configuration that sets nothing', () => {
  const config = parseConfig(new TextEncoder().encode('{ "kcp_bind": ":1", "connect": "127.0.0.1:1" }'))
  const written: Partial<Record<string, number>> = coreConfig(config, undefined, 4)
  for (const [name, { unset, default: value }] of Object.entries(abi.config)) {
    if (unset) assert.is(written[name], undefined, name)
    else if (value !== undefined) assert.is(written[name], value, name)
  }
})

test('descriptors, addresses, events and counters have the listed offsets', () => {
  const calls = instantiate()
  const core = new Core(calls)
  core.fillEntropy()
  core.configure({ ...GOOD, keepalive: 0 } as CoreConfig, 0)
  const { Rx, Tx, AddressRecord, Event, Info } = abi.structs
  assert.ok(Rx && Tx && AddressRecord && Event && Info)
  const view = (): DataView => new DataView(calls.memory.buffer)
  const at = (base: number, struct: { fields: Record<string, { offset: number }> }, field: string): number =>
    base + (struct.fields[field]?.offset ?? Number.NaN)
  const counter = (name: CounterName): bigint => {
    const index = Object.keys(abi.counters).indexOf(name)
    return view().getBigUint64(calls.stats_ptr() + 8 * index, true)
  }
  const address = (base: number): void => {
    view().setUint16(at(base, AddressRecord, 'family'), 4, true)
    view().setUint16(at(base, AddressRecord, 'port'), 4000, true)
    view().setUint32(at(base, AddressRecord, 'scope'), 0, true)
    view().setUint32(at(base, AddressRecord, 'ip'), 0x7f000001)
  }
  address(calls.peer_ptr() >>> 0)
  assert.is(calls.set_peer(0), 0)
  const handle = calls.stream_open(0)
  assert.ok(handle > 0)
  assert.is(counter('sessions_opened'), 1n)
  assert.is(counter('sessions_connect'), 1n)
  assert.is(calls.stream_reserve(handle, 5), 1)
  assert.is(calls.stream_commit(handle, 5, 0), 0)
  assert.is(counter('tcp_read_bytes'), 5n)
  const sent = calls.poll_transmit(64, 0)
  assert.ok(sent > 0)
  const tx = calls.tx_ptr() >>> 0
  assert.is(view().getUint32(at(tx, Tx, 'handle'), true), handle)
  const receiver = view().getUint32(at(tx, Tx, 'address'), true)
  assert.is(view().getUint16(at(receiver, AddressRecord, 'port'), true), 4000)
  const length = view().getUint32(at(tx, Tx, 'length'), true)
  assert.is(counter('pkt_sent'), BigInt(sent))
  assert.ok(counter('pkt_sent_bytes') >= BigInt(length))
  // one datagram within the size limit, and one that is too long
  for (const [flags, bytes] of [
    [0, 100],
    [1, 1501],
  ] as const) {
    const rx = calls.rx_ptr() >>> 0
    assert.ok(view().getUint32(at(rx, Rx, 'capacity'), true) >= 1501)
    view().setUint32(at(rx, Rx, 'length'), bytes, true)
    view().setUint32(at(rx, Rx, 'flags'), flags, true)
    address(at(rx, Rx, 'address'))
    calls.handle_datagrams(1, 0)
  }
  assert.is(counter('pkt_received'), 2n)
  assert.is(counter('drop_oversize'), 1n)
  assert.is(calls.session_find(handle, 0), 0)
  const info = calls.info_ptr() >>> 0
  assert.is(view().getUint32(at(info, Info, 'state'), true), abi.enums['SessionState']?.values['CONNECT']?.value)
  assert.is(view().getBigUint64(at(info, Info, 'tcpRead'), true), 5n)
  assert.is(view().getUint16(at(info, Info, 'address') + 2, true), 4000)
  assert.is(calls.session_find(handle + 1000, 0), abi.enums['ErrorCode']?.values['HANDLE']?.value)
  // an unanswered session ends with an event
  let now = 0
  let events = 0
  for (let i = 0; i < 1000 && events === 0; i++) {
    now += Math.max(1, calls.next_timeout(now))
    calls.handle_timeout(now)
    while (calls.poll_transmit(64, now) > 0);
    events = calls.poll_events()
  }
  const event = calls.events_ptr() >>> 0
  const types = abi.enums['EventType']?.values
  const list = Array.from({ length: events }, (_, i) => view().getUint32(at(event + 16 * i, Event, 'type'), true))
  assert.ok(list.includes(types?.['ABORT']?.value ?? 0) || list.includes(types?.['RESOLVE']?.value ?? 0), list.join())
})

test('refresh_gauges updates the gauges; next_timeout does not', () => {
  const calls = instantiate()
  const core = new Core(calls)
  core.fillEntropy()
  core.configure({ ...GOOD, keepalive: 0 } as CoreConfig, 0)
  const before = core.counter('memory_used')
  core.u32.set([4 | (4000 << 16), 0, 0x0100007f, 0, 0, 0], calls.peer_ptr() >>> 2)
  calls.set_peer(0)
  calls.stream_open(0)
  calls.next_timeout(0)
  assert.is(core.counter('memory_used'), before)
  assert.is(calls.refresh_gauges(0), 0)
  assert.ok(core.counter('memory_used') > before)
})

const cc = ['cc', 'gcc', 'clang'].find((name) => spawnSync(name, ['--version']).status === 0)
if (cc === undefined) skip(test, 'the C header compiles and has the listed offsets', 'there is no C compiler')
else {
  test('the C header compiles and has the listed offsets', () => {
    const directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
    try {
      const lines = ['#include <stddef.h>', `#include "${process.cwd()}/dist/kcptun_core.h"`]
      const snake = (name: string): string => name.replace(/([a-z\d])([A-Z])/g, '$1_$2').toLowerCase()
      for (const [name, { fields }] of Object.entries(abi.structs)) {
        for (const [field, { offset }] of Object.entries(fields)) {
          lines.push(
            `_Static_assert(offsetof(struct kcptun_${snake(name)}, ${snake(field)}) == ${offset}, "${name}.${field}");`,
          )
        }
      }
      const counters = Object.keys(abi.counters)
      for (const [index, name] of counters.entries()) {
        lines.push(`_Static_assert(KCPTUN_COUNTER_${name.toUpperCase()} == ${index}, "${name}");`)
      }
      const file = join(directory, 'abi.c')
      writeFileSync(file, `${lines.join('\n')}\n`)
      execFileSync(cc, ['-std=c11', '-Wall', '-Wextra', '-Werror', '-fsyntax-only', file], { stdio: 'pipe' })
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
}

test.run()
