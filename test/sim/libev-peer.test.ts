/**
 * The engine with a model of a kcptun-libev peer: ACKs only every 100 ms flush interval, a clock that advances only
 * then, timeouts that depend on received bytes only (protocol.md 5.8, 6.7). The engine must interoperate without
 * needless retransmissions and keep the peer's sessions alive.
 *
 * To repeat one random run: SIM_SEED=12 node test/run.mjs sim/libev-peer --runtime node
 */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Mixed, type MixedOptions } from '../../testkit/sim/mixed.ts'
import { Random } from '../../testkit/sim/random.ts'

type Script = MixedOptions['script']

function finished(mixed: Mixed, ours: number, theirs: number): boolean {
  return mixed.app?.received === theirs && mixed.session?.received === ours
}

function complete(options: MixedOptions, seconds: number): Mixed {
  const mixed = new Mixed(options)
  const ours = options.script.ours.bytes ?? 0
  const theirs = options.script.libev.bytes ?? 0
  const done = mixed.runUntil(() => finished(mixed, ours, theirs), seconds)
  assert.ok(done, `seed ${options.seed}: ${mixed.describe()}`)
  assert.not.ok(mixed.session?.wrong, 'wrong bytes at the kcptun-libev peer')
  return mixed
}

const test = suite('sim/libev-peer')

for (const ours of ['client', 'server'] as const) {
  for (const loss of [0, 0.02, 0.1]) {
    test(`MUST 27: transfers in both directions with a kcptun-libev peer, engine as ${ours}, loss ${loss}`, () => {
      for (let seed = 1; seed <= 6; seed++) {
        const script: Script = {
          ours: { bytes: 300_000, fin: 'send' },
          libev: { bytes: 300_000, fin: 'send' },
        }
        // the kcptun-libev peer must end last: it drops its own direction after our EOF (6.5)
        const patient = { ours: { ...script.ours, finPause: 60_000 }, libev: script.libev }
        complete({ seed, ours, link: { delay: 20, jitter: 5, loss }, script: patient }, 300)
      }
    })
  }
}

test('random transfers with a kcptun-libev peer: every byte arrives at both ends', () => {
  const only = process.env['SIM_SEED']
  for (let seed = Number(only ?? 1); seed <= Number(only ?? 120); seed++) {
    const random = new Random(seed)
    const end = (fin: 'send' | 'never') => ({
      bytes: random.below(random.pick(100, 20_000, 400_000)),
      chunk: random.between(1, 20_000),
      readRate: random.chance(0.3) ? random.between(50, 1000) : 0,
      writeRate: random.chance(0.3) ? random.between(50, 1000) : 0,
      pause: random.below(500),
      fin,
    })
    complete(
      {
        seed,
        ours: random.pick('client', 'server'),
        config: { sndwnd: random.pick(32, 256, 1024), rcvwnd: random.pick(128, 256, 1024) },
        libev: {
          kcp: {
            interval: random.pick(10, 50, 100, 500),
            resend: random.pick(0, 0, 1, 2),
            nodelay: random.pick(0, 1, 2),
            sndwnd: random.pick(16, 256, 1024),
            rcvwnd: random.pick(16, 256, 1024),
            mtu: random.pick(300, 1372),
          },
        },
        link: {
          delay: random.pick(1, 20, 100),
          jitter: random.pick(0, 10),
          loss: random.pick(0, 0.02, 0.1, 0.2),
          duplicate: random.pick(0, 0.05),
          reorder: random.pick(0, 0.05),
        },
        // kcptun-libev drops its own direction after our EOF
        script: { ours: end('never'), libev: end('send') },
      },
      900,
    )
  }
})

test('MUST 27: transfers with a kcptun-libev peer with interval 500', () => {
  complete(
    {
      seed: 3,
      ours: 'client',
      libev: { kcp: { interval: 500 } },
      link: { delay: 20, loss: 0.01 },
      script: { ours: { bytes: 200_000, fin: 'never' }, libev: { bytes: 200_000, fin: 'send' } },
    },
    300,
  )
})

test('late ACKs of a kcptun-libev peer cause few needless retransmissions', () => {
  const mixed = complete(
    {
      seed: 4,
      ours: 'client',
      link: { delay: 20 },
      script: { ours: { bytes: 2_000_000, fin: 'never' }, libev: { bytes: 0, fin: 'never' } },
    },
    120,
  )
  const sent = mixed.endpoint.counter('segments_sent')
  const repeated = mixed.endpoint.counter('segments_retransmitted') + mixed.endpoint.counter('segments_redundant')
  assert.ok(repeated <= sent * 0.1, `${repeated} of ${sent} segments were retransmitted on a perfect link`)
})

test('a one-way upload to a kcptun-libev server outlasts its timeout', () => {
  complete(
    {
      seed: 5,
      ours: 'client',
      libev: { timeout: 60 },
      config: { timeout: 60 },
      script: { ours: { bytes: 300_000, writeRate: 1, chunk: 1000, fin: 'send' }, libev: { fin: 'last' } },
    },
    400,
  )
})

test('KEEPALIVEs let a one-way download from a kcptun-libev server outlast its timeout', () => {
  complete(
    {
      seed: 6,
      ours: 'client',
      libev: { timeout: 60 },
      config: { timeout: 60 },
      script: { ours: { fin: 'last' }, libev: { bytes: 300_000, writeRate: 1, chunk: 1000, fin: 'send' } },
    },
    400,
  )
})

test('KEEPALIVEs let a one-way upload from a kcptun-libev client outlast its timeout', () => {
  complete(
    {
      seed: 7,
      ours: 'server',
      libev: { timeout: 60 },
      config: { timeout: 60 },
      script: { ours: { fin: 'last' }, libev: { bytes: 300_000, writeRate: 1, chunk: 1000, fin: 'send' } },
    },
    400,
  )
})

test('a kcptun-libev peer that has sent everything is kept alive while our reader is slow: no truncation', () => {
  for (const ours of ['client', 'server'] as const) {
    const mixed = complete(
      {
        seed: 8,
        ours,
        script: { ours: { fin: 'last', readRate: 4 }, libev: { bytes: 600_000, fin: 'send' } },
      },
      400,
    )
    assert.ok(
      mixed.runUntil(() => mixed.app?.ending !== undefined, 60),
      mixed.describe(),
    )
    assert.is(mixed.app?.ending, 'detached')
    assert.ok(mixed.app?.eof)
  }
})

test('a kcptun-libev peer whose queue takes longer than its linger to cross a slow link is kept alive', () => {
  for (const ours of ['client', 'server'] as const) {
    const mixed = complete(
      {
        seed: 11,
        ours,
        libev: { linger: 5, kcp: { sndwnd: 1024 } },
        config: { linger: 5, rcvwnd: 128 },
        link: { rate: 60, queue: 256_000 },
        script: { ours: { fin: 'last' }, libev: { bytes: 2_500_000, fin: 'send' } },
      },
      1000,
    )
    assert.ok(
      mixed.runUntil(() => mixed.app?.ending !== undefined, 60),
      mixed.describe(),
    )
    assert.is(mixed.app?.ending, 'detached')
  }
})

test('MUST 37: an idle session with a kcptun-libev peer stays open for hours, as client and as server', () => {
  // a kcptun-libev client keeps only 4 of 10 idle sessions alive by itself
  for (const ours of ['client', 'server'] as const) {
    for (const phase of [0, 1, 2, 3, 4]) {
      const mixed = new Mixed({
        seed: 9,
        ours,
        libev: { timeout: 60 },
        config: { timeout: 60 },
        script: {
          ours: { bytes: 10, fin: 'never', pause: phase * 2000 },
          libev: { bytes: 10, fin: 'never', pause: phase * 2000 },
        },
      })
      mixed.runUntil(() => mixed.app?.ending !== undefined || mixed.session?.state === 'time_wait', 3 * 3600)
      assert.is(mixed.app?.ending, undefined, `we are the ${ours}, phase ${phase}: ${mixed.describe()}`)
      assert.is(mixed.session?.state, 'established', `we are the ${ours}, phase ${phase}: ${mixed.describe()}`)
    }
  }
})

test('a kcptun-libev peer drops its direction after our EOF: the session ends by linger, without a false clean end', () => {
  const mixed = new Mixed({
    seed: 10,
    ours: 'client',
    script: { ours: { bytes: 1000, fin: 'send' }, libev: { bytes: 50, pause: 5000, fin: 'send' } },
  })
  assert.ok(
    mixed.runUntil(() => mixed.app?.ending !== undefined, 200),
    mixed.describe(),
  )
  assert.is(mixed.session?.received, 1000)
  assert.is(mixed.app?.ending, 'aborted')
  assert.not.ok(mixed.app?.eof)
})

test.run()
