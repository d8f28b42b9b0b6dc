// The pages of the documentation site: groups of the side bar with their sources, in the order of reading.

/**
 * @typedef {object} Page
 * @property {string} source Markdown file, relative to the project
 * @property {string} name of the page, without `.html`
 * @property {string} title in the side bar
 */

/** @type {(source: string, title: string, name?: string) => Page} */
const page = (source, title, name = source.replace(/^.*\//, '').replace(/\.md$/, '')) => ({ source, name, title })

/** @type {readonly { text: string, pages: readonly Page[] }[]} */
export const groups = [
  { text: 'Start', pages: [page('docs/README.md', 'Overview', 'index')] },
  {
    text: 'Use',
    pages: [page('docs/configuration.md', 'Configuration'), page('docs/migration.md', 'Migration')],
  },
  {
    text: 'Run',
    pages: [
      page('docs/operation.md', 'doctor and top'),
      page('docs/troubleshooting.md', 'Troubleshooting'),
      page('docs/api.md', 'Monitoring'),
      page('runtime-c/README.md', 'Native host in C', 'native'),
    ],
  },
  {
    text: 'Programs',
    pages: [
      page('docs/library.md', 'Library'),
      page('docs/embedding.md', 'Embedding'),
      page('docs/abi.md', 'Engine ABI'),
    ],
  },
  {
    text: 'Background',
    pages: [
      page('docs/performance.md', 'Performance'),
      page('bench/RECORD.md', 'Record of measurements', 'record'),
      page('docs/reliability.md', 'Reliability'),
      page('SECURITY.md', 'Threat model', 'threat-model'),
      page('docs/protocol.md', 'Wire protocol'),
      page('docs/process.md', 'Interfaces of kcptun-libev'),
      page('docs/validation.md', 'Nonces, replay, migration'),
      page('docs/architecture.md', 'Architecture'),
    ],
  },
  {
    text: 'Project',
    pages: [page('CONTRIBUTING.md', 'Contributing', 'contributing'), page('CHANGELOG.md', 'Changelog', 'changelog')],
  },
]

export const pages = groups.flatMap((group) => group.pages)
