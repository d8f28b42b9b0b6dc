/**
 * The operators of the mutation check: each finds the nodes of a syntax tree to which it applies, and yields the
 * replacement texts.
 */
import {
  type Expression,
  type FunctionDeclaration,
  isArrowFunction,
  isBinaryExpression,
  isBlock,
  isBreakStatement,
  isCallExpression,
  isConditionalExpression,
  isContinueStatement,
  isDoStatement,
  isExpressionStatement,
  isForStatement,
  isFunctionDeclaration,
  isFunctionLikeDeclaration,
  isIdentifier,
  isIfStatement,
  isMethodDeclaration,
  isNumericLiteral,
  isPostfixUnaryExpression,
  isPrefixUnaryExpression,
  isReturnStatement,
  isStringLiteral,
  isTemplateExpression,
  isThrowStatement,
  isWhileStatement,
  type MethodDeclaration,
  type Node,
  type SourceFile,
  SyntaxKind,
} from 'typescript/unstable/ast'

export const OPERATORS = [
  'negate condition',
  'flip boundary',
  'swap + and -',
  'swap && and ||',
  'delete statement',
  'remove call',
  'constant +-1',
  'true/false',
  'replace return value',
  'early return',
] as const

export type Operator = (typeof OPERATORS)[number]

/** Replaces the text from `start` to `end`. */
export interface Edit {
  readonly operator: Operator
  readonly start: number
  readonly end: number
  readonly replacement: string
}

/** A node with its context. */
interface Place {
  readonly source: SourceFile
  readonly node: Node
  readonly ancestors: readonly Node[]
}

type Finder = (place: Place) => Iterable<Edit>

const text = ({ source }: Place, node: Node): string => source.text.slice(node.getStart(source), node.end)

function edit(place: Place, operator: Operator, node: Node, replacement: string): Edit {
  return { operator, start: node.getStart(place.source), end: node.end, replacement }
}

const negation = (place: Place, node: Node): string => `!(${text(place, node)})`

function condition(node: Node): Expression | undefined {
  if (isIfStatement(node) || isWhileStatement(node) || isDoStatement(node)) return node.expression
  if (isForStatement(node)) return node.condition
  return isConditionalExpression(node) ? node.condition : undefined
}

function* negateCondition(place: Place): Iterable<Edit> {
  const tested = condition(place.node)
  // the literal of `while (true)` is left to true/false
  if (tested === undefined || isBoolean(tested)) return
  yield edit(place, 'negate condition', tested, negation(place, tested))
}

const SWAPPED: readonly [Operator, Readonly<Record<string, string>>][] = [
  ['flip boundary', { '<': '<=', '<=': '<', '>': '>=', '>=': '>' }],
  ['swap && and ||', { '&&': '||', '||': '&&' }],
  ['swap + and -', { '+': '-', '-': '+', '+=': '-=', '-=': '+=' }],
]

const isText = (node: Node): boolean => isStringLiteral(node) || isTemplateExpression(node)

function* swapBinary(place: Place): Iterable<Edit> {
  const { node } = place
  if (!isBinaryExpression(node) || isText(node.left) || isText(node.right)) return
  const sign = text(place, node.operatorToken)
  for (const [operator, pairs] of SWAPPED) {
    const other = pairs[sign]
    if (other !== undefined) yield edit(place, operator, node.operatorToken, other)
  }
}

const isUpdate = (node: Node): boolean =>
  isPostfixUnaryExpression(node) || (isPrefixUnaryExpression(node) && isStep(node))
const isStep = (node: { operator: SyntaxKind }): boolean =>
  node.operator === SyntaxKind.PlusPlusToken || node.operator === SyntaxKind.MinusMinusToken

function* swapUpdate(place: Place): Iterable<Edit> {
  const { node, ancestors } = place
  const parent = ancestors.at(-1)
  // a loop that counts in the other direction does not end: too easily detected
  if (!isUpdate(node) || (parent && isForStatement(parent) && parent.incrementor === node)) return
  const other = text(place, node).replace(/\+\+|--/, (sign) => (sign === '++' ? '--' : '++'))
  yield edit(place, 'swap + and -', node, other)
}

const isAssignment = (node: Node): boolean =>
  isBinaryExpression(node) &&
  node.operatorToken.kind >= SyntaxKind.FirstAssignment &&
  node.operatorToken.kind <= SyntaxKind.LastAssignment

function* deleteStatement(place: Place): Iterable<Edit> {
  const { node, ancestors } = place
  const isAction = isExpressionStatement(node) && (isAssignment(node.expression) || isUpdate(node.expression))
  const isJump = isBreakStatement(node) && !ancestors.some((above) => above.kind === SyntaxKind.SwitchStatement)
  if (isAction || isJump || isContinueStatement(node) || isThrowStatement(node)) {
    yield edit(place, 'delete statement', node, '{}')
  }
}

/** Calls without effect in a release build. */
const WITHOUT_EFFECT = new Set(['assert', 'super'])

function* removeCall(place: Place): Iterable<Edit> {
  const { node } = place
  if (!isExpressionStatement(node)) return
  const awaited = node.expression.kind === SyntaxKind.AwaitExpression
  const call = awaited ? (node.expression as unknown as { expression: Expression }).expression : node.expression
  if (!isCallExpression(call) || WITHOUT_EFFECT.has(text(place, call.expression))) return
  yield edit(place, 'remove call', node, '{}')
}

function* shiftConstant(place: Place): Iterable<Edit> {
  const { node, ancestors } = place
  if (!isNumericLiteral(node) || ancestors.some((above) => above.kind === SyntaxKind.LiteralType)) return
  const parent = ancestors.at(-1)
  const value = Number(text(place, node).replaceAll('_', ''))
  if (!Number.isSafeInteger(value)) return
  yield edit(place, 'constant +-1', node, String(value + 1))
  // neither a negated literal nor 0
  if (value > 0 && !(parent && isPrefixUnaryExpression(parent))) {
    yield edit(place, 'constant +-1', node, String(value - 1))
  }
}

const isBoolean = (node: Node): boolean => node.kind === SyntaxKind.TrueKeyword || node.kind === SyntaxKind.FalseKeyword

function* flipBoolean(place: Place): Iterable<Edit> {
  const { node, ancestors } = place
  if (!isBoolean(node) || ancestors.at(-1)?.kind === SyntaxKind.LiteralType) return
  yield edit(place, 'true/false', node, node.kind === SyntaxKind.TrueKeyword ? 'false' : 'true')
}

const NUMBERS = /^(number|[iu](8|16|32|64)|[iu]size|f32|f64|Ticks|ElapsedTicks|Milliseconds|Seconds|Sn|Ts|Conv)$/
const COMPARISON = /^([=!]==?|[<>]=?|&&)$/

type WithType = FunctionDeclaration | MethodDeclaration

/** @returns another value of the type that a function returns; undefined when none is known */
function otherValue(place: Place, value: Expression, type: string): string | undefined {
  const was = text(place, value)
  const isComparison = isBinaryExpression(value) && COMPARISON.test(text(place, value.operatorToken))
  if (isBoolean(value)) return undefined
  if (type === 'bool' || type === 'boolean' || (type === '' && isComparison)) return negation(place, value)
  if (NUMBERS.test(type)) return was === '0' ? '1' : '0'
  if (type === 'string') return was === "''" ? undefined : "''"
  for (const nothing of ['null', 'undefined']) {
    if (type.endsWith(`| ${nothing}`)) return was === nothing ? undefined : nothing
  }
  return undefined
}

function* replaceReturn(place: Place): Iterable<Edit> {
  const { node, ancestors } = place
  if (!isReturnStatement(node) || node.expression === undefined) return
  const owner = ancestors.findLast((above) => isFunctionLikeDeclaration(above)) as WithType | undefined
  const type = owner?.type ? text(place, owner.type) : ''
  const other = otherValue(place, node.expression, type)
  if (other !== undefined) yield edit(place, 'replace return value', node.expression, other)
}

/** @returns whether a function returns a value; nested functions do not count */
function returnsValue(node: Node): boolean {
  let found = false
  const visit = (child: Node): void => {
    if (isReturnStatement(child) && child.expression !== undefined) found = true
    else if (!isFunctionLikeDeclaration(child)) child.forEachChild(visit)
  }
  node.forEachChild(visit)
  return found
}

function* returnEarly(place: Place): Iterable<Edit> {
  const { node, source } = place
  if (!isFunctionDeclaration(node) && !isMethodDeclaration(node) && !isArrowFunction(node)) return
  const { body } = node
  if (body === undefined || !isBlock(body) || body.statements.length === 0 || returnsValue(body)) return
  const first = body.statements[0] as Node
  const start = first.getStart(source)
  // for a body of one statement this equals `delete statement` or `remove call`
  if (body.statements.length === 1 && isExpressionStatement(first)) return
  yield { operator: 'early return', start, end: start, replacement: 'return; ' }
}

const finders: readonly Finder[] = [
  negateCondition,
  swapBinary,
  swapUpdate,
  deleteStatement,
  removeCall,
  shiftConstant,
  flipBoolean,
  replaceReturn,
  returnEarly,
]

/** Subtrees without behaviour: types, imports, enumerations (their numbers are the interface), debug checks. */
function isInert(node: Node, source: SourceFile): boolean {
  if (node.kind === SyntaxKind.Decorator || node.kind === SyntaxKind.EnumDeclaration) return true
  if (node.kind === SyntaxKind.ImportDeclaration || node.kind === SyntaxKind.InterfaceDeclaration) return true
  if (node.kind === SyntaxKind.TypeAliasDeclaration) return true
  if (!isCallExpression(node) || !isIdentifier(node.expression)) return false
  return WITHOUT_EFFECT.has(source.text.slice(node.expression.getStart(source), node.expression.end))
}

/**
 * Finds every place of a file where an operator applies.
 * @returns edits in the order of the source
 */
export function findEdits(source: SourceFile): Edit[] {
  const edits: Edit[] = []
  const ancestors: Node[] = []
  const visit = (node: Node): void => {
    if (isInert(node, source)) return
    for (const find of finders) edits.push(...find({ source, node, ancestors }))
    ancestors.push(node)
    node.forEachChild(visit)
    ancestors.pop()
  }
  visit(source)
  return edits
}
