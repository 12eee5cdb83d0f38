// What one reader saw of a message: the same shape for both readers, compared as text. Must not live here: reading.

export interface Message {
  /** Method, or status. */
  start: string
  /** authority and path of a request as the codec gives them; '' for responses. */
  target: string
  minor: number
  /** Lower-case end-to-end fields, `name: value` a line. */
  fields: string
  body: string
  trailers: string
  /** Raw bytes follow, which are in `body`. */
  tunnel: boolean
  complete: boolean
}

export interface Reading {
  messages: Message[]
  /** Why reading stopped before the end of the bytes: '' if it did not. 'close' is the end of a connection that nobody broke. */
  stopped: string
}

export function emptyMessage(): Message {
  return { start: '', target: '', minor: 1, fields: '', body: '', trailers: '', tunnel: false, complete: false }
}

export function lines(flat: readonly string[]): string {
  let text = ''
  for (let i = 0; i < flat.length; i += 2) text += `${flat[i]}: ${flat[i + 1]}\n`
  return text
}
