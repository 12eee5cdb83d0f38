// Resources in the form they are sent: encoded once, however many streams send them. A version is a hash of the content,
// so it survives a restart of control and two replicas agree on it. Must not live here: streams.
import { createHash } from 'node:crypto'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import type { ResourceKind } from './contract.ts'
import { typeUrls } from './types.ts'

export interface EncodedResource {
  readonly kind: ResourceKind
  readonly name: string
  readonly version: string
  /** DeltaDiscoveryResponse.resources, tag and length included: responses are made by joining these. */
  readonly frame: Uint8Array
}

const RESPONSE = { systemVersion: 1, resources: 2, typeUrl: 4, nonce: 5, removed: 6 } as const
const RESOURCE = { version: 1, resource: 2, name: 3 } as const
const ANY = { typeUrl: 1, value: 2 } as const
/** Wire type of strings, bytes and messages. */
const LENGTH_DELIMITED = 2

/** Frames one resource; `body` is the encoded message of the kind. */
export function encodeResource(kind: ResourceKind, name: string, body: Uint8Array): EncodedResource {
  // 72 bits: two contents of one name collide once in 10^21.
  const version = createHash('sha256').update(body).digest('base64url').slice(0, 12)
  const writer = new BinaryWriter()
  writer.tag(RESPONSE.resources, LENGTH_DELIMITED).fork()
  writer.tag(RESOURCE.version, LENGTH_DELIMITED).string(version)
  writer.tag(RESOURCE.resource, LENGTH_DELIMITED).fork()
  writer.tag(ANY.typeUrl, LENGTH_DELIMITED).string(typeUrls[kind])
  writer.tag(ANY.value, LENGTH_DELIMITED).bytes(body)
  writer.join()
  writer.tag(RESOURCE.name, LENGTH_DELIMITED).string(name)
  writer.join()
  return { kind, name, version, frame: writer.finish() }
}

/** One DeltaDiscoveryResponse, ready to send. */
export function encodeResponse(
  kind: ResourceKind,
  systemVersion: string,
  nonce: string,
  resources: readonly EncodedResource[],
  removed: readonly string[],
): Buffer {
  const head = new BinaryWriter()
  head.tag(RESPONSE.systemVersion, LENGTH_DELIMITED).string(systemVersion)
  const tail = new BinaryWriter()
  tail.tag(RESPONSE.typeUrl, LENGTH_DELIMITED).string(typeUrls[kind])
  tail.tag(RESPONSE.nonce, LENGTH_DELIMITED).string(nonce)
  for (const name of removed) tail.tag(RESPONSE.removed, LENGTH_DELIMITED).string(name)
  return Buffer.concat([head.finish(), ...resources.map((resource) => resource.frame), tail.finish()])
}

/** Ends `system_version_info` of a response after which more of the same state follows; others may ignore it. */
export const MORE = ';more'
