// Where the values of a JSON text stand in it, so that one can be put in or taken out with every other byte left alone: order
// and spelling of what others wrote stay. For text that JSON.parse takes. Must not live here: what the values mean (conflist.ts).

/** From the first character of a value to behind its last. */
export interface Span {
  readonly start: number
  readonly end: number
}

export interface Member extends Span {
  readonly key: string
}

/** The value of the whole text. */
export function rootOf(text: string): Span {
  const start = skipSpace(text, 0)
  return { start, end: endOf(text, start) }
}

/** Members of the object that begins at `object.start`; none if it is another kind of value. */
export function membersOf(text: string, object: Span): Member[] {
  if (text[object.start] !== '{') return []
  const members: Member[] = []
  let at = skipSpace(text, object.start + 1)
  while (text[at] === '"') {
    const keyEnd = endOf(text, at)
    const key = JSON.parse(text.slice(at, keyEnd)) as string
    // Past the colon.
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1)
    const end = endOf(text, start)
    members.push({ key, start, end })
    at = afterComma(text, end)
  }
  return members
}

/** Elements of the array that begins at `array.start`; none if it is another kind of value. */
export function elementsOf(text: string, array: Span): Span[] {
  if (text[array.start] !== '[') return []
  const elements: Span[] = []
  let start = skipSpace(text, array.start + 1)
  while (start < array.end - 1) {
    const end = endOf(text, start)
    elements.push({ start, end })
    start = afterComma(text, end)
  }
  return elements
}

function afterComma(text: string, end: number): number {
  const at = skipSpace(text, end)
  return text[at] === ',' ? skipSpace(text, at + 1) : at
}

function skipSpace(text: string, from: number): number {
  let at = from
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\r' || text[at] === '\t') at++
  return at
}

function endOfString(text: string, start: number): number {
  let at = start + 1
  while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

function endOf(text: string, start: number): number {
  const first = text[start]
  if (first === '"') return endOfString(text, start)
  if (first !== '{' && first !== '[') {
    let at = start
    while (at < text.length && !',]} \n\r\t'.includes(text[at]!)) at++
    return at
  }
  let depth = 0
  for (let at = start; at < text.length; at++) {
    const character = text[at]
    if (character === '"') at = endOfString(text, at) - 1
    else if (character === '{' || character === '[') depth++
    else if ((character === '}' || character === ']') && --depth === 0) return at + 1
  }
  return text.length
}
