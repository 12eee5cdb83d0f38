// A workload or a service, as istio.workload.Address carries either.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { serviceKey, type Service } from '../../mesh/service.ts'
import type { Workload } from '../../mesh/workload.ts'
import { AddressSchema } from '../gen/istio/workload/workload_pb.js'
import type { Codec } from './codec.ts'
import { invalid } from './parts.ts'
import { decodeService, encodeService } from './service.ts'
import { decodeWorkload, encodeWorkload } from './workload.ts'

export type Address =
  { readonly type: 'workload'; readonly workload: Workload } | { readonly type: 'service'; readonly service: Service }

export const addressCodec: Codec<Address> = {
  kind: 'Address',
  nameOf: (address) => (address.type === 'workload' ? address.workload.uid : serviceKey(address.service)),
  encode(address) {
    const type =
      address.type === 'workload'
        ? ({ case: 'workload', value: encodeWorkload(address.workload) } as const)
        : ({ case: 'service', value: encodeService(address.service) } as const)
    return toBinary(AddressSchema, create(AddressSchema, { type }))
  },
  decode(bytes) {
    const { type } = fromBinary(AddressSchema, bytes)
    switch (type.case) {
      case 'workload':
        return { type: 'workload', workload: decodeWorkload(type.value) }
      case 'service':
        return { type: 'service', service: decodeService(type.value) }
      case undefined:
        throw invalid('an address that is neither workload nor service')
    }
  },
}
