/** DOM helpers. Text is only set as text content: addresses and log lines are untrusted. */

export function byId(id: string): HTMLElement {
  const element = document.getElementById(id)
  if (element === null) throw new Error(`no element ${id}`)
  return element
}

/** Sets a text only if it differs, to avoid disturbing screen readers and selections. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text
}

export function make(tag: string, className = '', text = ''): HTMLElement {
  const element = document.createElement(tag)
  if (className !== '') element.className = className
  if (text !== '') element.textContent = text
  return element
}

/** Shows pairs in a `dl`. Its elements are reused while the terms are the same. */
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
