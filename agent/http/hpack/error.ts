// The one error of this room: a block that cannot be decoded ends its connection (RFC 7541 §2, COMPRESSION_ERROR).

export class HpackError extends Error {
  constructor(message: string) {
    super(message)
    this.name = 'HpackError'
  }
}
