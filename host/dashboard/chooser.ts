/** The choice among several tunnels: one of them, or all together. It is the fragment of the page's address. */
import { byId, make } from './dom.ts'
import type { TunnelState } from './sample.ts'

const ALL = 'All tunnels'

/** The tunnel that is shown; empty: all, or the only one. */
export const chosenTunnel = decodeURIComponent(location.hash.slice(1))

/** Shows another tunnel: charts and tables begin anew. */
export function choose(name: string): void {
  location.hash = encodeURIComponent(name)
}
addEventListener('hashchange', () => location.reload())

const select = byId('tunnel') as HTMLSelectElement
select.addEventListener('change', () => choose(select.value))

/** Offers the tunnels; those that do not work are marked. */
export function showChooser(tunnels: readonly TunnelState[] | undefined): void {
  if (tunnels === undefined) return
  select.hidden = false
  const texts = tunnels.map(({ name, ready }) => (ready ? name : `${name} (not ready)`))
  if (select.dataset['texts'] === texts.join('\n')) return
  select.dataset['texts'] = texts.join('\n')
  const option = (text: string, value: string): HTMLElement => {
    const element = make('option', '', text) as HTMLOptionElement
    element.value = value
    return element
  }
  select.replaceChildren(option(ALL, ''), ...tunnels.map(({ name }, index) => option(texts[index] ?? name, name)))
  select.value = chosenTunnel
}
