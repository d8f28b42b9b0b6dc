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

/** A title and what it says; of a figure that is set large, the unit apart. */
export type Pair = readonly [term: string, text: string, unit?: string]

/**
 * Shows pairs in a `dl`. Its elements are reused while the terms are the same.
 * @param adorn is called with each new term
 */
export function setPairs(list: Element, pairs: readonly Pair[], adorn: (term: Element) => void = () => {}): void {
  const terms = pairs.map(([term]) => term).join('\n')
  if (list.getAttribute('data-terms') !== terms) {
    list.setAttribute('data-terms', terms)
    list.replaceChildren(
      ...pairs.map(([term]) => {
        const group = make('div')
        const title = make('dt', '', term)
        adorn(title)
        group.append(title, make('dd'))
        return group
      }),
    )
  }
  pairs.forEach(([, text, unit], i) => {
    const value = list.children[i]?.lastElementChild
    if (!value) return
    if (unit === undefined) setText(value, text)
    else if (value.textContent !== `${text} ${unit}`) value.replaceChildren(text, ' ', make('small', '', unit))
  })
}
