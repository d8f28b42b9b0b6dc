/** Serves pages to a browser: scripts of test/browser/pages with the library as it is published, and single files. */
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

type Files = ReadonlyMap<string, readonly [type: string, content: string | Buffer]>

async function serve(files: Files): Promise<Site> {
  const server = createServer(({ url = '/' }, response) => {
    const file = files.get(url)
    response.writeHead(file === undefined ? 404 : 200, { 'content-type': file?.[0] ?? 'text/plain' }).end(file?.[1])
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close: () => server.close() }
}

/** Serves a page that is one file. */
export const servePage = async (path: string): Promise<Site> =>
  serve(new Map([['/', ['text/html', await readFile(path)]]]))

/** Serves a page at `/` that runs the script `page`. */
export async function serveSite(): Promise<Site> {
  const files = new Map<string, readonly [type: string, content: string | Buffer]>([
    ['/', ['text/html', `${PAGE}<script type="module" src="/page.js"></script>`]],
    [LIBRARY, ['text/javascript', await readFile('dist/browser/index.js')]],
  ])
  for (const name of ['page', 'worker']) {
    files.set(`/${name}.js`, ['text/javascript', await bundle(`test/browser/pages/${name}.ts`)])
  }
  return serve(files)
}
