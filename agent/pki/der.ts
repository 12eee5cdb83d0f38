// A DER writer, just enough for a certificate signing request: agents need no x509 library. Must not live here: parsing.

export const TAG = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  sequence: 0x30,
  set: 0x31,
  boolean: 0x01,
  /** [0] constructed. */
  context0: 0xa0,
  /** [6] primitive: uniformResourceIdentifier of GeneralName (RFC 5280 §4.2.1.6). */
  uri: 0x86,
} as const

/** Tag, length, content. */
export function der(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content)
  const length = body.length
  if (length < 0x80) return Buffer.concat([Buffer.of(tag, length), body])
  const bytes = length < 0x100 ? [length] : [length >> 8, length & 0xff]
  if (length > 0xffff) throw new RangeError('a DER value of more than 65535 bytes')
  return Buffer.concat([Buffer.of(tag, 0x80 | bytes.length, ...bytes), body])
}

/** An object identifier from its dotted text. */
export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number)
  const bytes = [first * 40 + second]
  for (const arc of rest) {
    const groups = [arc & 0x7f]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) groups.unshift((left & 0x7f) | 0x80)
    bytes.push(...groups)
  }
  return der(TAG.oid, Buffer.from(bytes))
}

/** Lines of 64 characters between BEGIN and END. */
export function pem(label: string, bytes: Uint8Array): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
