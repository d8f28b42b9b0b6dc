/** A log file on a disk that is slow, full or gone, and its rotation, with writes that end when the test says so. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseConfig } from '../../host/config/load.ts'
import { systemError } from '../../host/errors.ts'
import { parseLogFile } from '../../host/log/file-name.ts'
import { Log } from '../../host/log/log.ts'
import { LogOutput } from '../../host/log/log-output.ts'
import { VirtualClock } from '../../testkit/virtual-clock.ts'

const test = suite('log file')

type Done = (error: Error | null, written: number) => void

/** Files in memory. */
class Disk {
  readonly files = new Map<string, string>()
  readonly #paths: string[] = []
  readonly #open = new Set<number>()
  readonly #pending: { fd: number; bytes: Uint8Array; done: Done }[] = []
  /** Error of each write. */
  code = ''
  /** Errors of opening, by path. */
  readonly refused = new Map<string, string>()
  onExit = (): void => {}

  readonly calls = {
    open: (path: string) => {
      const code = this.refused.get(path)
      if (code !== undefined) throw systemError(code, 'refused', 'open')
      const isNew = !this.files.has(path)
      if (isNew) this.files.set(path, '')
      this.#open.add(this.#paths.length)
      return { fd: this.#paths.push(path) - 1, isNew }
    },
    problem: (path: string) => this.refused.get(path),
    write: (fd: number, bytes: Uint8Array, done: Done) => void this.#pending.push({ fd, bytes, done }),
    writeNow: (fd: number, bytes: Uint8Array) => this.#append(fd, bytes),
    setOwner() {},
    close: (fd: number) => {
      assert.ok(this.#open.delete(fd), 'closed once')
    },
    onExit: (callback: () => void) => {
      this.onExit = callback
    },
  }

  get openFiles(): number {
    return this.#open.size
  }

  /** The system renames a file that is open. */
  rename(from: string, to: string): void {
    this.files.set(to, this.files.get(from) ?? '')
    this.files.delete(from)
    for (const [fd, path] of this.#paths.entries()) if (path === from) this.#paths[fd] = to
  }

  #append(fd: number, bytes: Uint8Array): void {
    assert.ok(this.#open.has(fd), 'written while it is open')
    const path = this.#paths[fd] ?? ''
    this.files.set(path, (this.files.get(path) ?? '') + new TextDecoder().decode(bytes))
  }

  /** Ends the write under way. @param most bytes of it */
  step(most = Number.POSITIVE_INFINITY): void {
    const write = this.#pending.shift()
    if (write === undefined) return
    if (this.code !== '') {
      write.done(systemError(this.code, 'no', 'write'), 0)
      return
    }
    const bytes = write.bytes.subarray(0, most)
    this.#append(write.fd, bytes)
    write.done(null, bytes.length)
  }

  /** Ends all. */
  run(most?: number): void {
    while (this.#pending.length > 0 && this.code === '') this.step(most)
  }

  texts(path: string): string[] {
    const text = this.files.get(path) ?? ''
    assert.ok(text === '' || text.endsWith('\n'), `whole lines: ${text}`)
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => line.split(' ').slice(2).join(' '))
  }
}

function setUp() {
  const clock = new VirtualClock()
  const disk = new Disk()
  const printed: string[] = []
  const log = new Log(
    (stream, text) => printed.push(`${stream} ${text}`),
    () => new Date(clock.wall()),
    undefined,
    (callback, ms) => clock.setTimer(callback, ms),
  )
  const output = new LogOutput({ clock, logFiles: async () => disk.calls }, log)
  return { clock, disk, printed, log, output }
}

test('a file is named by file:, and what names none is refused', () => {
  assert.is(parseLogFile('file:/var/log/a.log'), '/var/log/a.log')
  assert.is(parseLogFile('file:///var/log/a.log'), '/var/log/a.log')
  assert.is(parseLogFile('file:logs/a.log'), 'logs/a.log')
  for (const [text, pattern] of [
    ['file:', /config key log = "file:": the path of the file is missing/],
    ['file:/var/log/', /"file:\/var\/log\/": the path is that of a file/],
    ['file:/a\0b', /NUL/],
  ] as const) {
    const bytes = new TextEncoder().encode(JSON.stringify({ listen: ':1', kcp_connect: '192.0.2.1:1', log: text }))
    assert.throws(() => parseConfig(bytes), pattern)
  }
})

test('a write that does not end delays nobody: lines wait, then they are dropped and counted', async () => {
  const { clock, disk, log, output } = setUp()
  await output.set('file:/a')
  for (let line = 0; line < 5000; line++) log.notice(`${line} ${'x'.repeat(100)}`)
  assert.is(disk.files.get('/a'), '')
  disk.run(1000)
  await clock.advance(2000)
  disk.run(1000)
  const texts = disk.texts('/a')
  const kept = texts.filter((text) => text.endsWith('xx'))
  for (const [index, text] of kept.entries()) assert.ok(text.startsWith(`${index} `), `${text} is in order`)
  assert.ok(kept.length > 1000 && kept.length < 4000, `${kept.length} waited`)
  const counts = texts.map(
    (text) => /^(\d+) log lines? w.* dropped: the log file is written too slowly$/.exec(text)?.[1],
  )
  const dropped = counts.reduce((sum, count) => sum + Number(count ?? 0), 0)
  assert.is(kept.length + dropped, 5000, texts.at(-1))
  log.notice('and on')
  disk.run()
  assert.is(disk.texts('/a').at(-1), 'and on')
})

test('a full disk is reported on standard error at once, and in the file when it is over', async () => {
  const { clock, disk, printed, log, output } = setUp()
  await output.set('file:/a')
  log.notice('before')
  disk.step(5)
  disk.code = 'ENOSPC'
  disk.step()
  assert.is(printed.length, 1)
  assert.match(printed[0] ?? '', /^stderr the log file \/a cannot be written: ENOSPC/)
  assert.match(log.recent.at(-1)?.text ?? '', /ENOSPC/, 'the dashboard shows it')
  for (let second = 0; second < 5; second++) {
    log.notice(`meanwhile ${second}`)
    await clock.advance(1000)
    disk.step()
  }
  assert.is(printed.length, 1, 'once')
  disk.code = ''
  await clock.advance(2000)
  disk.run()
  const texts = disk.texts('/a')
  assert.equal(texts.slice(0, 6), ['before', ...[0, 1, 2, 3, 4].map((second) => `meanwhile ${second}`)])
  assert.match(texts[6] ?? '', /the log file could not be written for .*: ENOSPC/)
  assert.is(texts.length, 7)
})

for (const isSlow of [false, true])
  test(`a rotation during a write loses and divides no line${isSlow ? ', nor do several during one' : ''}`, async () => {
    for (const most of [1, 7, 1000]) {
      const { disk, log, output } = setUp()
      await output.set('file:/a')
      for (let round = 0; round < 3; round++) {
        for (let line = 0; line < 4; line++) log.notice(`${round} ${line}`)
        disk.step(most)
        disk.rename('/a', `/a.${round}`)
        output.reopen()
        log.notice(`${round} after`)
        if (isSlow) continue
        disk.run(most)
        const own = disk.texts(`/a.${round}`).filter((line) => line.startsWith(`${round} `))
        assert.is(own.length, 4, 'what was logged before the rotation is in the old file')
      }
      disk.run(most)
      const lines = ['/a.0', '/a.1', '/a.2', '/a'].flatMap((path) => disk.texts(path))
      const expected = [0, 1, 2].flatMap((round) => [0, 1, 2, 3, 'after'].map((line) => `${round} ${line}`))
      assert.equal(
        lines.filter((line) => !line.startsWith('log file opened again')),
        expected,
      )
      assert.is(disk.openFiles, 1, 'the others are closed')
    }
  })

test('a rotation while the disk is full leaves whole lines in the new file', async () => {
  const { disk, log, output, clock } = setUp()
  await output.set('file:/a')
  log.notice('divided')
  disk.step(3)
  disk.code = 'EIO'
  disk.step()
  log.notice('next')
  disk.rename('/a', '/a.1')
  output.reopen()
  disk.code = ''
  disk.run()
  await clock.advance(5000)
  disk.run()
  assert.is(disk.files.get('/a.1'), 'I 2')
  const [first, ...others] = disk.texts('/a')
  assert.is(first, 'next')
  assert.ok(others.some((text) => text.includes('opened again')))
})

test('a file that cannot be opened again leaves the log where it is, with one line', async () => {
  const { disk, log, output } = setUp()
  await output.set('file:/a')
  disk.rename('/a', '/a.1')
  disk.refused.set('/a', 'EACCES')
  output.reopen()
  log.notice('on')
  disk.run()
  const [error, ...rest] = disk.texts('/a.1')
  assert.match(error ?? '', /config key log = "file:\/a": cannot be opened again, .*EACCES/)
  assert.equal(rest, ['on'])
})

test('another path, another output and back', async () => {
  const { disk, printed, log, output } = setUp()
  await output.set('file:/a')
  log.notice('one')
  await output.set('file:/a')
  await output.set('file:/b')
  log.notice('two')
  disk.run()
  const left = output.set('stderr')
  await left
  log.notice('three')
  output.reopen()
  await output.set('file:/b')
  log.notice('four')
  disk.run()
  assert.equal(disk.texts('/a'), ['one'])
  assert.equal(disk.texts('/b'), ['the log continues here, it was in /a', 'two', 'four'])
  assert.is(printed.length, 1)
  assert.match(printed[0] ?? '', /^stderr .* three/)
  assert.is(disk.openFiles, 1)
})

test('a refused file changes nothing, and names key, value and reason', async () => {
  const { disk, log, output } = setUp()
  await output.set('file:/a')
  disk.refused.set('/b', 'EROFS')
  for (const attempt of [() => output.check('file:/b'), () => output.set('file:/b')]) {
    const message = await attempt().then(
      () => '',
      (error) => String(error.message),
    )
    assert.match(message, /^config key log = "file:\/b": cannot be opened: .*EROFS/)
  }
  await output.check('file:/a')
  log.notice('here')
  disk.run()
  assert.equal(disk.texts('/a'), ['here'])
})

test('an unknown output leaves the file in use', async () => {
  const { disk, log, output } = setUp()
  await output.set('file:/a')
  await output.set('File:/b')
  log.notice('still')
  disk.run()
  assert.is(disk.texts('/a').length, 2)
  assert.match(disk.texts('/a')[0] ?? '', /"File:\/b": must be .* file:PATH; not changed/)
})

test('a daemon keeps its file, and what ends the program is on standard error too', async () => {
  const { disk, printed, log, output } = setUp()
  await output.set('file:/a')
  log.detach()
  log.fatal('the end')
  disk.run()
  assert.equal(disk.texts('/a'), ['the end'])
  assert.equal(printed, ['stderr the end\n'])
})

test('lines that wait when the process ends are written, unless the disk hangs', async () => {
  const { clock, disk, log, output } = setUp()
  await output.set('file:/a')
  log.notice('under way')
  log.notice('waiting')
  disk.onExit()
  assert.equal(disk.texts('/a'), ['waiting'], 'what is under way is with the system already')
  log.notice('late')
  await clock.advance(5000)
  disk.onExit()
  assert.equal(disk.texts('/a'), ['waiting'])
})

test('flush waits for the lines so far, but not for a disk that hangs', async () => {
  const { clock, disk, log, output } = setUp()
  assert.is(output.flush(), undefined, 'no file')
  await output.set('file:/a')
  await output.flush()
  log.notice('a')
  let isDone = false
  void output.flush()?.then(() => {
    isDone = true
  })
  await clock.settle()
  assert.not(isDone)
  disk.run()
  await clock.settle()
  assert.ok(isDone)
  log.notice('b')
  const flushed = output.flush()
  await clock.advance(1500)
  await flushed
})

test.run()
