/** Serves scripts of test/browser/pages, and the library as it is published, to a browser. */
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
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

/** Serves a page at `/` that runs the script `page`. */
export async function serveSite(): Promise<Site> {
  const files = new Map<string, readonly [type: string, text: string | Buffer]>([
    ['/', ['text/html', `${PAGE}<script type="module" src="/page.js"></script>`]],
    [LIBRARY, ['text/javascript', await readFile('dist/browser/index.js')]],
  ])
  for (const name of ['page', 'worker']) {
    files.set(`/${name}.js`, ['text/javascript', await bundle(`test/browser/pages/${name}.ts`)])
  }
  const server = createServer(({ url = '/' }, response) => {
    const file = files.get(url)
    response.writeHead(file === undefined ? 404 : 200, { 'content-type': file?.[0] ?? 'text/plain' }).end(file?.[1])
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}
