// The first flight of a TLS 1.3 client (RFC 8446 §4.1.2) that wants nothing but to be recognised by the name it asks for: what an
// inbound canary sends. Must not live here: who recognises it (canaries.ts).
import { randomFillSync } from 'node:crypto'

const HANDSHAKE = 22
const CLIENT_HELLO = 1
const AES_128_GCM_SHA256 = 0x13_01
const X25519 = 0x00_1d
const ECDSA_P256_SHA256 = 0x04_03
const RSA_PSS_SHA256 = 0x08_04

function u16(value: number): number[] {
  return [value >> 8, value & 255]
}

function sized(bytes: readonly number[]): number[] {
  return [...u16(bytes.length), ...bytes]
}

function extension(type: number, body: readonly number[]): number[] {
  return [...u16(type), ...sized(body)]
}

/** One TLS record with a ClientHello for `serverName`, which is ASCII. It offers the one suite and the one group that every server of the mesh takes. */
export function clientHello(serverName: string): Uint8Array {
  const random = [...randomFillSync(new Uint8Array(64))]
  const name = [...Buffer.from(serverName, 'ascii')]
  const extensions = [
    ...extension(0, sized([0, ...sized(name)])), // server_name
    ...extension(10, sized(u16(X25519))), // supported_groups
    ...extension(13, sized([...u16(ECDSA_P256_SHA256), ...u16(RSA_PSS_SHA256)])), // signature_algorithms
    ...extension(16, sized([2, 0x68, 0x32])), // ALPN h2
    ...extension(43, [2, 3, 4]), // supported_versions: TLS 1.3
    ...extension(51, sized([...u16(X25519), ...sized(random.slice(32))])), // key_share
  ]
  const hello = [
    ...[3, 3], // TLS 1.2, as a 1.3 client says
    ...random.slice(0, 32),
    0, // no session id
    ...sized(u16(AES_128_GCM_SHA256)),
    ...[1, 0], // no compression
    ...sized(extensions),
  ]
  return Uint8Array.from([HANDSHAKE, 3, 1, ...sized([CLIENT_HELLO, 0, ...u16(hello.length), ...hello])])
}
