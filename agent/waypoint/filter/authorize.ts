// AuthorizationPolicy at the waypoint: judged before routing where one verdict holds for all endpoints, and again for the
// chosen endpoint where policies differ. Must not live here: evaluation (mesh/authorize).
import { authorizeRequest, type CompiledPolicies } from '../../mesh/authorize.ts'
import { accessDenied, type LocalReply } from '../reply.ts'
import type { Run } from '../run.ts'
import type { Filter } from './filter.ts'

function judge(run: Run, policies: CompiledPolicies): LocalReply | undefined {
  if (run.judged === policies) return undefined
  run.judged = policies
  const verdict = authorizeRequest(policies, run)
  run.verdict = verdict
  return verdict.allowed ? undefined : accessDenied(verdict.details)
}

export const authorizeFilter: Filter = {
  name: 'authorize',
  onRequest: (run) => (run.table.common ? judge(run, run.table.common) : undefined),
  onEndpoint: (run) => (run.host ? judge(run, run.table.forEndpoint(run.host.candidate.workload)) : undefined),
}
