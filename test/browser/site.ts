/** Serves pages to a browser: scripts of test/browser/pages with the library as it is published, and single files. */
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join, normalize } from 'node:path'
import * as esbuild from 'esbuild'

const LIBRARY = '/kcptun-wasm.js'
const PAGE = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>Test</title>'

export interface Site {
  readonly url: string
  close(): void
}

const bundle = async (path: string): Promise<string> => {
  const { outputFiles } = await esbuild.build({
    entryPoints: [path],
    bundle: true,
    write: false,
    format: 'esm',
    plugins: [
      {
        name: 'library',
        setup: (build) =>
          build.onResolve({ filter: /^kcptun-wasm\/browser$/ }, () => ({ path: LIBRARY, external: true })),
      },
    ],
  })
  return outputFiles[0]?.text ?? ''
}

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.json': 'application/json',
}

type File = readonly [type: string, content: string | Buffer]

async function serve(find: (path: string) => Promise<File | undefined>): Promise<Site> {
  const server = createServer(async ({ url = '/' }, response) => {
    const [type, content] = (await find(normalize(new URL(url, 'http://site').pathname))) ?? []
    response.writeHead(content === undefined ? 404 : 200, { 'content-type': type ?? 'text/plain' }).end(content)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}

/** Serves the files of a directory. */
export const serveFolder = (folder: string): Promise<Site> =>
  serve(async (path) => {
    const file = join(folder, path.endsWith('/') ? `${path}index.html` : path)
    const content = await readFile(file).catch(() => undefined)
    return content && [TYPES[extname(file)] ?? 'application/octet-stream', content]
  })

/** Serves a page that is one file. */
export async function servePage(path: string): Promise<Site> {
  const page: File = ['text/html', await readFile(path)]
  return serve(async (asked) => (asked === '/' ? page : undefined))
}

/** Serves a page at `/` that runs the script `page`. */
export async function serveSite(): Promise<Site> {
  const files = new Map<string, File>([
    ['/', ['text/html', `${PAGE}<script type="module" src="/page.js"></script>`]],
    [LIBRARY, ['text/javascript', await readFile('dist/browser/index.js')]],
  ])
  for (const name of ['page', 'worker']) {
    files.set(`/${name}.js`, ['text/javascript', await bundle(`test/browser/pages/${name}.ts`)])
  }
  return serve(async (path) => files.get(path))
}
