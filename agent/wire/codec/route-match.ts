// String and path matches of routes ⇄ ambit.v1.
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { RouteStringMatch } from '../../mesh/match.ts'
import type { NamedMatch, PathMatch } from '../../mesh/route.ts'
import type {
  NamedMatch as WireNamed,
  PathMatch as WirePath,
  PathMatchSchema,
  RouteStringMatch as WireString,
  RouteStringMatchSchema,
} from '../gen/ambit/v1/route_pb.js'
import { invalid } from './parts.ts'

export function encodeString(match: RouteStringMatch): MessageInitShape<typeof RouteStringMatchSchema> {
  switch (match.type) {
    case 'exact':
    case 'prefix': {
      const type = { case: match.type, value: match.value } as
        { case: 'exact'; value: string } | { case: 'prefix'; value: string }
      return match.ignoreCase === undefined ? { type } : { type, ignoreCase: match.ignoreCase }
    }
    case 'regex':
      return { type: { case: 'regex', value: match.value } }
    case 'present':
      return { type: { case: 'present', value: {} } }
  }
}

export function decodeString(wire: WireString): RouteStringMatch {
  switch (wire.type.case) {
    case 'exact':
    case 'prefix': {
      const { case: type, value } = wire.type
      return wire.ignoreCase === undefined ? { type, value } : { type, value, ignoreCase: wire.ignoreCase }
    }
    case 'regex':
      return { type: 'regex', value: wire.type.value }
    case 'present':
      return { type: 'present' }
    case undefined:
      throw invalid('a string match of a kind that is not known to this version')
  }
}

export function encodeNamed(named: NamedMatch) {
  return { name: named.name, match: encodeString(named.match) }
}

export function decodeNamed(wire: WireNamed): NamedMatch {
  if (!wire.match) throw invalid(`a match on '${wire.name}' without a value`)
  return { name: wire.name, match: decodeString(wire.match) }
}

export function encodePath(path: PathMatch): MessageInitShape<typeof PathMatchSchema> {
  switch (path.type) {
    case 'exact':
      return { type: { case: 'exact', value: path.value }, ignoreCase: path.ignoreCase }
    case 'prefix':
      return { type: { case: 'prefix', value: path.value }, ignoreCase: path.ignoreCase }
    case 'elements':
      return { type: { case: 'elements', value: path.value } }
    case 'regex':
      return { type: { case: 'regex', value: path.value } }
  }
}

export function decodePath(wire: WirePath): PathMatch {
  switch (wire.type.case) {
    case 'exact':
    case 'prefix':
      return { type: wire.type.case, value: wire.type.value, ignoreCase: wire.ignoreCase }
    case 'elements':
    case 'regex':
      return { type: wire.type.case, value: wire.type.value }
    case undefined:
      throw invalid('a path match of a kind that is not known to this version')
  }
}
