/** A hosts file of its own for one program, in a mount namespace; other names have no name server. Needs root. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export class HostsFile {
  readonly #directory = mkdtempSync(join(tmpdir(), 'kcptun-wasm-'))
  readonly #names = new Map<string, readonly string[]>()

  constructor() {
    writeFileSync(join(this.#directory, 'resolv.conf'), 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n')
    this.#write()
  }

  /** Command prefix: runs a program that sees this file. */
  get wrapper(): readonly string[] {
    const mounts = ['hosts', 'resolv.conf'].map((name) => `mount --bind ${join(this.#directory, name)} /etc/${name}`)
    return ['unshare', '--mount', 'sh', '-c', `${mounts.join(' && ')} && exec "$0" "$@"`]
  }

  /** Sets the addresses of a name; none: the name does not exist. */
  set(name: string, ...addresses: string[]): void {
    this.#names.set(name, addresses)
    this.#write()
  }

  #write(): void {
    const lines = [...this.#names].flatMap(([name, addresses]) => addresses.map((address) => `${address} ${name}\n`))
    // in place: the file is mounted
    writeFileSync(join(this.#directory, 'hosts'), lines.join(''))
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true })
  }
}
