// VitePress: no web fonts, no analytics, a search index of our own; nothing is loaded from another host.

import { slug } from './links.mjs'
import { groups, pages } from './pages.mjs'

export const POLICY = [
  "default-src 'none'",
  // VitePress decides between light and dark in an inline script
  "script-src 'self' 'unsafe-inline'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ')

/** @typedef {{ relativePath: string }} Env */

/** Pages that the search leaves out. */
const UNSEARCHED = ['changelog', 'contributing', 'record']

const link = (/** @type {string} */ name) => `/${name === 'index' ? '' : name}`
const titled = (/** @type {string} */ name) => pages.find((page) => page.name === name)?.title ?? name
const nav = ['tutorial', 'faq', 'recipes', 'configuration', 'troubleshooting', 'library']

export default {
  title: 'kcptun-wasm',
  description: 'Encrypted TCP port forwarder over KCP, wire-compatible with kcptun-libev',
  lang: 'en',
  base: process.env.DOCS_BASE ?? '/',
  head: [
    ['meta', { 'http-equiv': 'Content-Security-Policy', content: POLICY }],
    ['link', { rel: 'icon', href: 'data:,' }],
  ],
  markdown: { anchor: { slugify: slug }, toc: { slugify: slug } },
  themeConfig: {
    nav: nav.map((name) => ({ text: titled(name), link: link(name) })),
    sidebar: groups.map((group) => ({
      text: group.text,
      items: group.pages.map((page) => ({ text: page.title, link: link(page.name) })),
    })),
    outline: [2, 3],
    search: {
      provider: 'local',
      options: {
        // answers for users, not the history of the project; functions for the client would need eval
        _render: (/** @type {string} */ text, /** @type {Env} */ env, /** @type {{ render: Function }} */ md) =>
          UNSEARCHED.some((name) => env.relativePath === `${name}.md`) ? '' : md.render(text, env),
      },
    },
    docFooter: { prev: 'Previous', next: 'Next' },
  },
}
