/**
 * The mutation sites: every operator applied to every file with behaviour of the engine and of the host's driver,
 * transports and endpoint. Files are parsed by the TypeScript compiler; AssemblyScript has the same syntax.
 */
import { join } from 'node:path'
import { API } from 'typescript/unstable/sync'
import { filesBelow, root } from '../../build/files.mjs'
import { type Edit, findEdits, type Operator } from './operators.ts'

export interface Mutant {
  readonly operator: Operator
  /** Path relative to the project. */
  readonly file: string
  readonly line: number
  /** The whole lines that the edit touches, without indentation: before and after. */
  readonly original: string
  readonly mutated: string
  readonly edit: Edit
}

const ROOMS = ['assembly', 'host/driver', 'host/transport', 'host/endpoint']

/** Generated from abi.json (other tests compare them), or not in the release module. */
const WITHOUT_BEHAVIOUR = new Set([
  'assembly/abi.ts',
  'assembly/counters.ts',
  'assembly/checked.ts',
  'assembly/memory/guard.ts',
])

const PROJECTS = ['assembly/tsconfig.json', 'tsconfig.json']

/** @returns the text of a file with the edit made */
export function applyEdit(text: string, { start, end, replacement }: Edit): string {
  return text.slice(0, start) + replacement + text.slice(end)
}

function mutantOf(file: string, text: string, edit: Edit): Mutant {
  const lineStart = text.lastIndexOf('\n', edit.start - 1) + 1
  const rest = text.indexOf('\n', edit.end)
  const lineEnd = rest < 0 ? text.length : rest
  const tidy = (lines: string): string => lines.trim().replace(/\s*\n\s*/g, ' ')
  return {
    operator: edit.operator,
    file,
    line: text.slice(0, edit.start).split('\n').length,
    original: tidy(text.slice(lineStart, lineEnd)),
    mutated: tidy(text.slice(lineStart, edit.start) + edit.replacement + text.slice(edit.end, lineEnd)),
    edit,
  }
}

/** @returns the sorted paths of the files to mutate */
export function subjectFiles(): string[] {
  return ROOMS.flatMap(filesBelow).filter((file) => file.endsWith('.ts') && !WITHOUT_BEHAVIOUR.has(file))
}

/**
 * All mutants of the files, in the order of files and places.
 * @param files relative to the project
 * @throws Error when the compiler does not know one of the files
 */
export function findMutants(files: readonly string[] = subjectFiles()): Mutant[] {
  const api = new API({ cwd: root })
  try {
    const openProjects = PROJECTS.map((project) => join(root, project))
    const projects = api.updateSnapshot({ openProjects }).getProjects()
    return files.flatMap((file) => {
      const path = join(root, file)
      const project = projects.find(({ program }) => program.getSourceFileNames().includes(path))
      const source = project?.program.getSourceFile(path)
      if (source === undefined) throw new Error(`${file} is in no project of the compiler`)
      return findEdits(source).map((edit) => mutantOf(file, source.text, edit))
    })
  } finally {
    api.close()
  }
}
