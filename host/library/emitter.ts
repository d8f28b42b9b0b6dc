/** Event listeners of clients, servers and tunnels. */

type Listener<Values extends unknown[]> = (...values: Values) => void

export class Emitter<Events extends Record<keyof Events, unknown[]>> {
  readonly #listeners = new Map<keyof Events, { readonly listener: Listener<never>; readonly once: boolean }[]>()

  on<Name extends keyof Events>(event: Name, listener: Listener<Events[Name]>): this {
    return this.#add(event, listener, false)
  }

  once<Name extends keyof Events>(event: Name, listener: Listener<Events[Name]>): this {
    return this.#add(event, listener, true)
  }

  /** Removes a listener, the latest of equal ones. */
  off<Name extends keyof Events>(event: Name, listener: Listener<Events[Name]>): this {
    const entries = this.#listeners.get(event) ?? []
    const at = entries.findLastIndex((entry) => entry.listener === listener)
    if (at >= 0) this.#listeners.set(event, entries.toSpliced(at, 1))
    return this
  }

  /** Calls the listeners in order, in a later microtask: never inside the engine. What one throws is uncaught. */
  protected emit<Name extends keyof Events>(event: Name, ...values: Events[Name]): void {
    for (const entry of this.#listeners.get(event) ?? []) {
      if (entry.once) this.off(event, entry.listener as Listener<Events[Name]>)
      queueMicrotask(() => (entry.listener as Listener<Events[Name]>)(...values))
    }
  }

  #add<Name extends keyof Events>(event: Name, listener: Listener<Events[Name]>, once: boolean): this {
    const entries = this.#listeners.get(event) ?? []
    this.#listeners.set(event, [...entries, { listener: listener as Listener<never>, once }])
    return this
  }
}
