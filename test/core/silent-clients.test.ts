/** A client with nothing to send, whose NAT assigns another port (docs/validation.md, "Migration"). */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { address4 } from '../../testkit/sim/address.ts'
import { Pair } from '../../testkit/sim/pair.ts'
import { Cmd } from '../../testkit/sim/wire.ts'

const test = suite('core/silent-clients')

test('a server reaches a client with nothing to send, whose NAT assigned another port after its last KEEPALIVE', () => {
  // while other conversations of the client come and go at the new port, no PING is due
  for (const isBusy of [false, true]) {
    const pair = new Pair({ seed: 4, sealing: 'random', up: { delay: 20 }, down: { delay: 20 } })
    const waiting = pair.connect({
      client: { bytes: 200, stream: 1, fin: 'last' },
      server: { bytes: 50_000, stream: 2, pause: 40_000 },
    })
    pair.run(30_000)
    pair.clientAddress = address4(1, 46000)
    for (let turn = 0; turn < 20; turn++) {
      if (isBusy) pair.connect({ client: { bytes: 200, stream: 3 }, server: { bytes: 200, stream: 4 } })
      pair.run(2000)
    }
    assert.ok(waiting.clean, `${isBusy ? 'busy' : 'idle'}: ${waiting.describe()}`)
  }
})

test('of the sessions of an idle client one asks beside each PING, and no more', () => {
  const pair = new Pair({ seed: 4, sealing: 'random', up: { delay: 20 }, down: { delay: 20 } })
  for (let i = 0; i < 5; i++) {
    pair.connect({
      client: { bytes: 200, stream: 2 * i + 1, fin: 'never' },
      server: { bytes: 200, stream: 2 * i + 2, fin: 'never' },
    })
  }
  pair.run(60_000)
  let [pings, asks] = [0, 0]
  pair.tap = (from, plain) => {
    const isControl = plain.subarray(0, 4).every((byte) => byte === 0)
    if (from === 'client' && isControl) pings++
    else if (from === 'client' && plain[4] === Cmd.WASK) asks++
    return true
  }
  pair.run(600_000)
  assert.ok(pings >= 600 / 32, `${pings} PINGs`)
  assert.is(asks, pings)
})

test.run()
