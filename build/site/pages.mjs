// The pages of the documentation site: groups of the side bar with their sources, in the order of reading.

/**
 * @typedef {object} Page
 * @property {string} source Markdown file or manual, relative to the project
 * @property {string} name of the page, without `.html`
 * @property {string} title in the side bar
 */

/** @type {(source: string, title: string, name?: string) => Page} */
const page = (source, title, name = source.replace(/^.*\//, '').replace(/\.md$/, '')) => ({ source, name, title })

/** @type {readonly { text: string, pages: readonly Page[] }[]} */
export const groups = [
  {
    text: 'Start',
    pages: [
      page('docs/README.md', 'Overview', 'index'),
      page('docs/tutorial.md', 'Tutorial'),
      page('docs/faq.md', 'Questions'),
      page('docs/recipes.md', 'Recipes'),
      page('docs/nat.md', 'NAT traversal'),
      page('docs/migration.md', 'Migration'),
    ],
  },
  {
    text: 'Set up',
    pages: [
      page('docs/install.md', 'Installation'),
      page('docs/configuration.md', 'Configuration'),
      page('docs/tuning.md', 'Tuning'),
      page('docs/keys.md', 'Security and keys'),
      page('docs/systemd.md', 'systemd'),
      page('docs/containers.md', 'Docker and Compose'),
      page('docs/kubernetes.md', 'Kubernetes'),
      page('docs/openwrt.md', 'OpenWrt'),
      page('runtime-c/README.md', 'Native host in C', 'native'),
    ],
  },
  {
    text: 'Run',
    pages: [
      page('docs/operation.md', 'doctor and top'),
      page('docs/troubleshooting.md', 'Troubleshooting'),
      page('docs/api.md', 'Monitoring'),
      page('docs/kcptun-wasm.8', 'Manual: the program'),
      page('docs/kcptun-wasm.json.5', 'Manual: the file'),
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
    pages: [
      page('CONTRIBUTING.md', 'Contributing', 'contributing'),
      page('RELEASING.md', 'Releasing', 'releasing'),
      page('CHANGELOG.md', 'Changelog', 'changelog'),
    ],
  },
]

export const pages = groups.flatMap((group) => group.pages)
