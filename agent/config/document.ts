// A file of YAML (or JSON, which is YAML) as separate documents with line numbers. Each document is parsed on its own,
// so that a broken one cannot take the others with it. Hostile input is bounded: size, number, aliases, depth.
// Must not live here: what a document means (load.ts).
import {
  isAlias,
  isCollection,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  type Document,
  type Node,
} from 'yaml'
import type { Problem } from './problem.ts'
import { formatPath, type FieldPath, type Origin } from './resource.ts'

/** Bytes of one file. etcd takes 1.5 MB an object; a folder of generated pods is the largest legitimate file. */
export const MAX_FILE_BYTES = 16 * 1024 * 1024
/** Documents in one file. */
export const MAX_DOCUMENTS = 20_000
/** Maps and lists inside each other. */
export const MAX_DEPTH = 200
/** Times aliases may be expanded in one document: beyond it is an alias bomb. */
export const MAX_ALIASES = 100

export interface RawDocument {
  /** The document's value. Of a broken document what could be read of it, or undefined: good for naming it only. */
  readonly value: unknown
  readonly origin: Origin
  /** Why it cannot be used; empty for a good document. */
  readonly problems: readonly Problem[]
}

/** Splits and parses; never throws. Empty documents are left out. */
export function readDocuments(text: string, file: string): RawDocument[] {
  const chunks = splitDocuments(text)
  const documents: RawDocument[] = []
  for (const chunk of chunks.slice(0, MAX_DOCUMENTS)) {
    const document = readDocument(chunk.text, chunk.line, file)
    if (document) documents.push(document)
  }
  if (chunks.length > MAX_DOCUMENTS) {
    const line = chunks[MAX_DOCUMENTS]?.line ?? 1
    documents.push(
      broken(
        undefined,
        file,
        line,
        'CONFIG_TOO_LARGE',
        `The file holds more than ${MAX_DOCUMENTS} documents.`,
        'Split it into several files.',
      ),
    )
  }
  return documents
}

/** Decodes the bytes of a file; a problem instead of text when they are too many or no UTF-8. */
export function decodeFile(bytes: Uint8Array, file: string): string | Problem {
  if (bytes.length > MAX_FILE_BYTES) {
    return fileProblem(
      file,
      1,
      'CONFIG_TOO_LARGE',
      `The file is larger than ${MAX_FILE_BYTES / 1024 / 1024} MiB.`,
      'Split it into several files.',
    )
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return fileProblem(file, 1, 'CONFIG_YAML_INVALID', 'The file is not UTF-8 text.', 'Save it as UTF-8.')
  }
}

export function fileProblem(file: string, line: number, code: Problem['code'], message: string, hint: string): Problem {
  return { severity: 'error', code, file, line, field: '', message, hint }
}

interface Chunk {
  readonly text: string
  /** 1-based line of the chunk's first line. */
  readonly line: number
}

/** `---` at the start of a line ends whatever came before it, also inside scalars (YAML 1.2.2 §9.1.2), so text can be cut there. */
function splitDocuments(text: string): Chunk[] {
  const chunks: Chunk[] = []
  const lines = text.split('\n')
  let start = 0
  let hasContent = false
  let hasMarker = false
  const cut = (end: number) => {
    if (hasContent) chunks.push({ text: lines.slice(start, end).join('\n'), line: start + 1 })
    start = end
    hasContent = false
    hasMarker = false
  }
  for (const [index, line] of lines.entries()) {
    if (/^---(\s|$)/.test(line)) {
      // Directives and comments before a first marker belong to the document that follows.
      if (hasContent || hasMarker) cut(index)
      hasMarker = true
      if (/^---\s+[^\s#]/.test(line)) hasContent = true
    } else if (/^\.\.\.(\s|$)/.test(line)) {
      cut(index + 1)
    } else if (!hasContent && !/^\s*(#.*)?$/.test(line) && (hasMarker || !line.startsWith('%'))) {
      hasContent = true
    }
  }
  cut(lines.length)
  return chunks
}

function readDocument(text: string, firstLine: number, file: string): RawDocument | undefined {
  const lines = new LineCounter()
  let document: Document.Parsed
  try {
    document = parseDocument(text, {
      lineCounter: lines,
      uniqueKeys: false,
      merge: true,
      prettyErrors: false,
      logLevel: 'silent',
    })
  } catch (error) {
    // Recursion deeper than the stack.
    const why = error instanceof RangeError ? 'it is nested too deeply' : String(error)
    return broken(undefined, file, firstLine, 'CONFIG_YAML_INVALID', `The document cannot be parsed: ${why}.`, '')
  }
  const lineAt = (offset: number) => firstLine - 1 + lines.linePos(offset).line
  const origin: Origin = {
    file,
    line: (path) => {
      const offset = offsetOf(document, path)
      return offset === undefined ? firstLine : lineAt(offset)
    },
  }
  const problems: Problem[] = []
  for (const error of document.errors.slice(0, 3)) {
    problems.push(
      fileProblem(
        file,
        lineAt(error.pos[0]),
        'CONFIG_YAML_INVALID',
        `Not valid YAML: ${error.message.replace(/\.$/, '')}.`,
        'Check the indentation, quotes and brackets of this line and the one before it.',
      ),
    )
  }
  let value: unknown
  try {
    for (const { message, hint, offset, path } of structuralErrors(document)) {
      problems.push({
        ...fileProblem(file, lineAt(offset), 'CONFIG_YAML_INVALID', message, hint),
        field: formatPath(path),
      })
    }
    value = document.toJS({ maxAliasCount: MAX_ALIASES })
  } catch (error) {
    const message =
      error instanceof ReferenceError && error.message.includes('alias')
        ? `The document's aliases expand to more than ${MAX_ALIASES} copies, or refer to nothing.`
        : 'The document is nested too deeply.'
    problems.push(fileProblem(file, firstLine, 'CONFIG_YAML_INVALID', message, 'Write the repeated part out.'))
  }
  if (problems.length > 0 && !hasKind(value)) value = guess(text)
  if (problems.length === 0 && (value === null || value === undefined)) return undefined
  return { value, origin, problems }
}

function hasKind(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'kind' in value
}

/** What a broken text seems to declare, read line by line: enough to name it and to keep its last good version. */
function guess(text: string): unknown {
  const find = (pattern: RegExp) => pattern.exec(text)?.[1]
  const kind = find(/^kind:[ \t]*["']?(\w+)/m)
  if (kind === undefined) return undefined
  const metadata = /^metadata:[ \t]*\n((?:[ \t]+.*\n?|\n)*)/m.exec(text)?.[1] ?? ''
  const name = /^[ \t]+name:[ \t]*["']?([\w.-]+)/m.exec(metadata)?.[1]
  const namespace = /^[ \t]+namespace:[ \t]*["']?([\w.-]+)/m.exec(metadata)?.[1]
  return { apiVersion: find(/^apiVersion:[ \t]*["']?([\w./-]+)/m) ?? '', kind, metadata: { name, namespace } }
}

function broken(
  value: unknown,
  file: string,
  line: number,
  code: Problem['code'],
  message: string,
  hint: string,
): RawDocument {
  return { value, origin: { file, line: () => line }, problems: [fileProblem(file, line, code, message, hint)] }
}

/** Duplicate keys (in linear time: the library's own check compares each key with each), excessive depth, `__proto__`. */
function structuralErrors(document: Document.Parsed): StructuralError[] {
  const found: StructuralError[] = []
  const walk = (node: unknown, path: FieldPath) => {
    if (found.length >= 3) return
    if (path.length > MAX_DEPTH) {
      found.push({
        message: `The document is nested more than ${MAX_DEPTH} levels deep.`,
        hint: '',
        offset: 0,
        path: [],
      })
    } else if (isMap(node)) {
      const seen = new Set<string>()
      for (const pair of node.items) {
        const key = isScalar(pair.key) ? String(pair.key.value) : '?'
        const offset = (pair.key as Node | null)?.range?.[0] ?? 0
        const at = [...path, key]
        if (isScalar(pair.key) && key !== '<<') {
          if (seen.has(key))
            found.push({
              message: `The key ${JSON.stringify(key)} appears twice in one map.`,
              hint: TWICE,
              offset,
              path: at,
            })
          else if (key === '__proto__')
            found.push({ message: '__proto__ is no field.', hint: 'Remove it.', offset, path: at })
          seen.add(key)
        }
        walk(pair.value, at)
      }
    } else if (isSeq(node)) {
      for (const [index, item] of node.items.entries()) walk(isPair(item) ? item.value : item, [...path, index])
    }
  }
  walk(document.contents, [])
  return found
}

interface StructuralError {
  readonly message: string
  readonly hint: string
  readonly offset: number
  readonly path: FieldPath
}

const TWICE = 'Keep one of the two: which of them would count is undefined.'

/** Offset of the key (or list item) at the path, or of its nearest existing parent. */
function offsetOf(document: Document.Parsed, path: FieldPath): number | undefined {
  let node: unknown = document.contents
  let offset = (document.contents as Node | null)?.range?.[0]
  for (const step of path) {
    if (isAlias(node)) node = node.resolve(document)
    if (!isCollection(node)) break
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(step))
      if (!pair) break
      offset = (pair.key as Node).range?.[0] ?? offset
      node = pair.value
    } else if (isSeq(node) && typeof step === 'number') {
      const item = node.items[step] as Node | undefined
      if (!item) break
      offset = item.range?.[0] ?? offset
      node = item
    } else break
  }
  return offset
}
