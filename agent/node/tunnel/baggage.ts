// The baggage of a workload, built once per workload object (reference: ambient, request headers).
import { baggageValue } from '../../http/hbone/headers.ts'
import type { Workload } from '../../mesh/workload.ts'

const known = new WeakMap<Workload, string>()

export function baggageOf(workload: Workload): string {
  let value = known.get(workload)
  if (value === undefined) {
    value = baggageValue({
      cluster: workload.clusterId,
      namespace: workload.namespace,
      workloadType: workload.workloadType,
      workloadName: workload.workloadName,
      service: workload.canonicalName,
      version: workload.canonicalRevision,
      region: workload.locality.region,
      zone: workload.locality.zone,
    })
    known.set(workload, value)
  }
  return value
}
