// Loaded before the program (node --import, bun --preload): its clocks and timers run FAST_CLOCK times as fast. Sockets,
// names and the kernel keep their own time.

const speed = Number(process.env['FAST_CLOCK'])
if (!(speed >= 1)) throw new Error(`FAST_CLOCK=${process.env['FAST_CLOCK']}: a number from 1 on is wanted`)

const { setTimeout, setInterval } = globalThis
const monotonic = performance.now.bind(performance)
const wall = Date.now
const start = { monotonic: monotonic(), wall: wall() }

performance.now = () => start.monotonic + (monotonic() - start.monotonic) * speed
Date.now = () => Math.round(start.wall + (wall() - start.wall) * speed)

/** @param {(...args: any[]) => any} original */
const faster =
  (original) =>
  (/** @type {any} */ callback, /** @type {number | undefined} */ ms, /** @type {any[]} */ ...args) =>
    original(callback, (ms ?? 0) / speed, ...args)

Object.assign(globalThis, { setTimeout: faster(setTimeout), setInterval: faster(setInterval) })
