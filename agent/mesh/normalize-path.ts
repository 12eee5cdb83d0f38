// Request paths in the form that policies and routes compare and that is sent on, by MeshConfig.pathNormalization
// (reference: l7, defaults; the rules are those of Istio's normalisation tests). Must not live here: matching.

export type PathNormalization = 'NONE' | 'BASE' | 'MERGE_SLASHES' | 'DECODE_AND_MERGE_SLASHES'

const PERCENT = 37
const SLASH = 47
const BACKSLASH = 92

/**
 * The normalised path with its query untouched, or undefined if the path is to be refused with 400 (an encoded NUL, a
 * path that does not start with a slash). `*` of OPTIONS and the empty target of CONNECT pass. Every mode cuts a fragment off.
 */
export function normalizePath(target: string, mode: PathNormalization): string | undefined {
  const fragment = target.indexOf('#')
  const whole = fragment < 0 ? target : target.slice(0, fragment)
  if (whole === '*' || whole === '') return whole
  if (whole.charCodeAt(0) !== SLASH) return undefined
  if (mode === 'NONE') return whole
  const question = whole.indexOf('?')
  const raw = question < 0 ? whole : whole.slice(0, question)
  const query = question < 0 ? '' : whole.slice(question)
  let path = raw
  if (needsWork(raw)) {
    const decoded = mode === 'DECODE_AND_MERGE_SLASHES' ? decodeSlashes(raw) : raw
    const unescaped = unescape(decoded)
    if (unescaped === undefined) return undefined
    path = removeDots(unescaped)
  }
  if (mode !== 'BASE' && path.includes('//')) path = path.replaceAll(SLASHES, '/')
  return query === '' ? path : path + query
}

const SLASHES = /\/{2,}/g

/** Most paths are in normal form: one pass without allocation finds out. */
function needsWork(path: string): boolean {
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code === PERCENT || code === BACKSLASH) return true
    // A dot matters only at the start of a segment.
    if (code === 46 && path.charCodeAt(i - 1) === SLASH) return true
  }
  return false
}

function decodeSlashes(path: string): string {
  return path.replaceAll(ENCODED_SLASHES, (text) => (text[1] === '2' ? '/' : '\\'))
}

const ENCODED_SLASHES = /%(?:2[fF]|5[cC])/g

function hex(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  if (code >= 97 && code <= 102) return code - 87
  if (code >= 65 && code <= 70) return code - 55
  return -1
}

function isUnreserved(code: number): boolean {
  return (
    (code >= 48 && code <= 57) ||
    (code >= 65 && code <= 90) ||
    (code >= 97 && code <= 122) ||
    code === 45 ||
    code === 46 ||
    code === 95 ||
    code === 126
  )
}

/** Decodes unreserved characters (RFC 3986 §2.3) once, turns backslashes; undefined for an encoded NUL. Other escapes keep their case. */
function unescape(path: string): string | undefined {
  let out = ''
  let from = 0
  for (let i = 0; i < path.length; i++) {
    const code = path.charCodeAt(i)
    if (code === BACKSLASH) {
      out += `${path.slice(from, i)}/`
      from = i + 1
    } else if (code === PERCENT) {
      const high = hex(path.charCodeAt(i + 1))
      const low = hex(path.charCodeAt(i + 2))
      if (high < 0 || low < 0) continue
      const byte = high * 16 + low
      if (byte === 0) return undefined
      if (isUnreserved(byte)) {
        out += path.slice(from, i) + String.fromCharCode(byte)
        from = i + 3
      }
      i += 2
    }
  }
  return out + path.slice(from)
}

/** RFC 3986 §5.2.4, keeping empty segments (`/app//../admin` is `/app/admin`). */
function removeDots(path: string): string {
  if (!path.includes('/.')) return path
  const segments = path.split('/')
  const out: string[] = []
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i] as string
    const last = i === segments.length - 1
    if (segment === '.') {
      if (last) out.push('')
    } else if (segment === '..') {
      out.pop()
      if (last) out.push('')
    } else out.push(segment)
  }
  return `/${out.join('/')}`
}
