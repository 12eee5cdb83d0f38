// Reads HTTP/1.1 answers of a load generator's connection: status, then `content-length` bytes of body. As little work as it can be, since it shares
// the client's core; an answer framed otherwise is an error. Must not live here: a codec (agent/http/http1).

const HEAD_END = Buffer.from('\r\n\r\n')
const LENGTH = Buffer.from('\r\ncontent-length:')
/** A head longer than this is none. */
const MAX_HEAD = 16_384

export class AnswerReader {
  /** Of the answer that was read last. */
  status = 0
  #rest: Buffer | undefined
  /** Body bytes still to come; −1 while the head is read. */
  #left = -1

  /** Takes bytes; true once an answer is complete. Throws on what is no answer, and on bytes after one. */
  take(arena: Uint8Array, start: number, end: number): boolean {
    let bytes = Buffer.from(arena.buffer, arena.byteOffset + start, end - start)
    if (this.#left < 0) {
      if (this.#rest) bytes = Buffer.concat([this.#rest, bytes])
      const at = bytes.indexOf(HEAD_END)
      if (at < 0) {
        if (bytes.length > MAX_HEAD) throw new Error('an answer without an end of its head')
        this.#rest = Buffer.from(bytes)
        return false
      }
      this.#rest = undefined
      const head = bytes.subarray(0, at + 2)
      // "HTTP/1.1 NNN": three digits from byte 9.
      this.status = digit(head, 9) * 100 + digit(head, 10) * 10 + digit(head, 11)
      this.#left = lengthOf(head)
      bytes = bytes.subarray(at + 4)
    }
    this.#left -= bytes.length
    if (this.#left > 0) return false
    if (this.#left < 0) throw new Error('bytes after an answer')
    this.#left = -1
    return true
  }
}

function digit(bytes: Buffer, at: number): number {
  return (bytes[at] ?? 0) - 0x30
}

function lengthOf(head: Buffer): number {
  let at = head.indexOf(LENGTH)
  if (at < 0) at = head.toString('latin1').toLowerCase().indexOf('\r\ncontent-length:')
  if (at < 0) throw new Error(`an answer without a length: ${head.toString('latin1').slice(0, 200)}`)
  return Number.parseInt(head.toString('latin1', at + LENGTH.length, at + LENGTH.length + 24), 10)
}
