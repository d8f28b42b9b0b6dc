// An esbuild plugin that counts, in chosen TypeScript files, how often functions and branches are entered. The counters are
// one array in the global scope; coverage.ts reads them.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import * as ast from 'typescript/unstable/ast'
import { API } from 'typescript/unstable/sync'
import { inProject } from '../../../build/files.mjs'

/** Counters; edges beyond them are not counted. */
const SLOTS = 8192
const NAME = '__edges'
const DECLARATION = `const ${NAME} = (globalThis.${NAME} ??= new Uint8ClampedArray(${SLOTS}));`

const SHORT_CIRCUITS = new Set([
  ast.SyntaxKind.AmpersandAmpersandToken,
  ast.SyntaxKind.BarBarToken,
  ast.SyntaxKind.QuestionQuestionToken,
])

/**
 * The counting statements of one file.
 * @param {ast.SourceFile} source
 * @param {() => number} edge numbers the edges
 */
function instrument(source, edge) {
  /** @type {[at: number, text: string][]} */
  const inserts = []
  const { text } = source
  const count = () => `${NAME}[${edge()}]++`
  /** @param {ast.Node} node */
  const startOf = (node) => ast.skipTrivia(text, node.pos)
  /** @param {ast.Node} node */
  const wrap = (node) => inserts.push([startOf(node), `(${count()}, (`], [node.end, '))'])
  /** @param {ast.Node} node */
  const body = (node) => {
    if (ast.isBlock(node)) inserts.push([startOf(node) + 1, `${count()};`])
    else inserts.push([startOf(node), `{${count()};`], [node.end, '}'])
  }
  /** @param {ast.Node} node */
  const visit = (node) => {
    if (ast.isFunctionLikeDeclaration(node) && node.body) {
      if (ast.isArrowFunction(node) && !ast.isBlock(node.body)) wrap(node.body)
      else body(node.body)
    } else if (ast.isIfStatement(node)) {
      if (!node.elseStatement) inserts.push([node.end, ` else ${count()};`])
      body(node.thenStatement)
      if (node.elseStatement) body(node.elseStatement)
    } else if (ast.isConditionalExpression(node)) {
      wrap(node.whenTrue)
      wrap(node.whenFalse)
    } else if (ast.isBinaryExpression(node) && SHORT_CIRCUITS.has(node.operatorToken.kind)) wrap(node.right)
    else if (ast.isForStatement(node) || ast.isForOfStatement(node) || ast.isWhileStatement(node)) body(node.statement)
    else if (ast.isCatchClause(node)) body(node.block)
    else if (ast.isCaseClause(node) || ast.isDefaultClause(node)) {
      const first = node.statements[0]
      if (first) inserts.push([startOf(first), `${count()};`])
    }
    node.forEachChild(visit)
  }
  visit(source)
  return inserts
}

/**
 * At the same place, what closes a node stands before what opens the next, inner ends before outer ones.
 * @param {string} text
 * @param {[at: number, text: string][]} inserts in the order of the nodes' starts
 */
function apply(text, inserts) {
  const closes = (/** @type {string} */ insert) => insert === '))' || insert === '}' || insert.startsWith(' else')
  const ordered = inserts
    .map(([at, insert], order) => ({ at, insert, order: closes(insert) ? -order : order }))
    .sort((a, b) => a.at - b.at || a.order - b.order)
  let out = ''
  let done = 0
  for (const { at, insert } of ordered) {
    out += text.slice(done, at) + insert
    done = at
  }
  return DECLARATION + out + text.slice(done)
}

/**
 * @param {readonly string[]} files relative to the project
 * @returns {import('esbuild').Plugin}
 */
export function countEdges(files) {
  const config = inProject('.cache/fuzz/tsconfig.json')
  const paths = files.map(inProject)
  mkdirSync(dirname(config), { recursive: true })
  // the syntax is all that is wanted: nothing else is loaded
  writeFileSync(config, JSON.stringify({ compilerOptions: { noLib: true, noResolve: true, types: [] }, files: paths }))
  const api = new API({ cwd: inProject('.') })
  /** @type {Map<string, string>} */
  const instrumented = new Map()
  let edges = 0
  try {
    const [project] = api.updateSnapshot({ openProjects: [config] }).getProjects()
    for (const path of paths) {
      const source = project?.program.getSourceFile(path)
      if (source === undefined) throw new Error(`${path} was not parsed`)
      instrumented.set(
        path,
        apply(
          readFileSync(path, 'utf8'),
          instrument(source, () => edges++),
        ),
      )
    }
  } finally {
    api.close()
  }
  return {
    name: 'count-edges',
    setup({ onLoad }) {
      onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const contents = instrumented.get(path)
        return contents === undefined ? undefined : { contents, loader: 'ts' }
      })
    },
  }
}
