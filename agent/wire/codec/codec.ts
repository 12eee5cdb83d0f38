// One codec per kind of resource: domain object ⇄ bytes of the message inside Resource.resource.
import type { ResourceKind } from '../contract.ts'

export interface Codec<T> {
  readonly kind: ResourceKind
  /** Name of the resource on the wire. */
  nameOf(value: T): string
  /** Equal objects give equal bytes. Throws WIRE_RESOURCE_INVALID for what cannot be carried. */
  encode(value: T): Uint8Array
  /** Throws (WIRE_RESOURCE_INVALID, or protobuf's own error for bytes that are none) without side effects. */
  decode(bytes: Uint8Array): T
}
