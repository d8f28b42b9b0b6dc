/** The page's elements. Text goes in as text only: addresses and log lines come from strangers. */

export function byId(id: string): HTMLElement {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`no element ${id}`)
  return element
}

/** Sets a text where it differs: a screen reader and a selection are disturbed by nothing else. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

export function make(tag: string, className = '', text = ''): HTMLElement {
  const element = document.createElement(tag)
  if (className !== '') element.className = className
  if (text !== '') element.textContent = text
  return element
}

/** Makes a `dl` say these pairs; its elements stay as long as the terms do. */
export function setPairs(list: Element, pairs: readonly (readonly [term: string, text: string])[]): void {
  const terms = pairs.map(([term]) => term).join('\n')
  if (list.getAttribute('data-terms') !== terms) {
    list.setAttribute('data-terms', terms)
    list.replaceChildren(
      ...pairs.map(([term]) => {
        const group = make('div')
        group.append(make('dt', '', term), make('dd'))
        return group
      }),
    )
  }
  pairs.forEach(([, text], i) => {
    const value = list.children[i]?.lastElementChild
    if (value) setText(value, text)
  })
}
