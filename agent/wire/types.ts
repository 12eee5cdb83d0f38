// Type URLs of the resources on the delta xDS stream.
import type { ResourceKind } from './contract.ts'

export const typeUrls: Readonly<Record<ResourceKind, string>> = {
  Address: 'type.googleapis.com/istio.workload.Address',
  Authorization: 'type.googleapis.com/istio.security.Authorization',
  Route: 'type.googleapis.com/ambit.v1.Route',
  Policy: 'type.googleapis.com/ambit.v1.Policy',
  Upstream: 'type.googleapis.com/ambit.v1.Upstream',
  Pod: 'type.googleapis.com/ambit.v1.Pod',
  MeshSettings: 'type.googleapis.com/ambit.v1.MeshSettings',
}

const byUrl = new Map(Object.entries(typeUrls).map(([kind, url]) => [url, kind as ResourceKind]))

export function kindOfTypeUrl(url: string): ResourceKind | undefined {
  return byUrl.get(url)
}
