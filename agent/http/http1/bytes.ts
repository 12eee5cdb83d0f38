// Character classes of RFC 9110 and RFC 9112 as tables, and bytes to text. Must not live here: grammar above one character.

/** Lower case of a token character (RFC 9110 §5.6.2), 0 for every other byte. */
export const TOKEN = new Uint8Array(256)
/** Characters of a field value (RFC 9110 §5.5): HTAB, SP, VCHAR, obs-text. */
export const VALUE = new Uint8Array(256)
/** Characters of a request target: visible ASCII only, so that no peer can read it differently. */
export const TARGET = new Uint8Array(256)
/** Characters of uri-host (RFC 3986 §3.2.2) outside brackets; no comma, which lists of hosts would need. */
export const HOST = new Uint8Array(256)
/** Value of a hexadecimal digit, or 255. */
export const HEX = new Uint8Array(256).fill(255)

for (let c = 0; c < 256; c++) {
  if (c === 9 || (c >= 32 && c !== 127)) VALUE[c] = 1
  if (c > 32 && c < 127) TARGET[c] = 1
}
for (const c of "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz") TOKEN[c.charCodeAt(0)] = c.charCodeAt(0)
for (const c of 'ABCDEFGHIJKLMNOPQRSTUVWXYZ') TOKEN[c.charCodeAt(0)] = c.charCodeAt(0) + 32
for (const c of "-._~%!$&'()*+;=0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
  HOST[c.charCodeAt(0)] = 1
for (let i = 0; i < 16; i++) {
  HEX['0123456789abcdef'.charCodeAt(i)] = i
  HEX['0123456789ABCDEF'.charCodeAt(i)] = i
}

export const HTAB = 9
export const LF = 10
export const CR = 13
export const SP = 32
export const COLON = 58

/** Text of bytes[start, end), one character a byte. */
export function latin1(bytes: Uint8Array, start: number, end: number): string {
  return Buffer.prototype.latin1Slice.call(bytes, start, end)
}

/** True if every character is a token's, and there is one. */
export function isToken(text: string): boolean {
  for (let i = 0; i < text.length; i++) if (!TOKEN[text.charCodeAt(i)]) return false
  return text.length > 0
}

/** protocol-name ["/" protocol-version], both tokens (RFC 9110 §7.8): `websocket`, `spdy/3.1`. */
export function isProtocol(text: string): boolean {
  const slash = text.indexOf('/')
  if (slash < 0) return isToken(text)
  return isToken(text.slice(0, slash)) && isToken(text.slice(slash + 1))
}

/** True if bytes[start, start + text.length) are the characters of `text`. */
export function startsWith(bytes: Uint8Array, start: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[start + i] !== text.charCodeAt(i)) return false
  return true
}
