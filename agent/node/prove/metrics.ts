// What the proofs look like to Prometheus. Bounded by the pods of one node. Must not live here: how they are made.
import type { Clock } from '../../base/clock.ts'
import type { Metrics } from '../../telemetry/exposition.ts'
import type { Prover } from './prover.ts'

export function proofMetrics(metrics: Metrics, prover: Prover, clock: Clock): void {
  const held = metrics.gauge({
    name: 'ambit_pod_protected',
    help: '1 where the last look at an enrolled pod found everything in order and both canaries arrived.',
    labels: ['namespace', 'pod'],
  })
  const age = metrics.gauge({
    name: 'ambit_pod_proof_age_seconds',
    help: 'Time since an enrolled pod was last proved to be protected; -1 before the first time.',
    labels: ['namespace', 'pod'],
  })
  const repairs = metrics.counter({
    name: 'ambit_repairs_total',
    help: 'What was found missing or changed in the kernel and put right.',
    labels: ['what'],
  })
  const failures = metrics.counter({
    name: 'ambit_canaries_failed_total',
    help: "Connections of the agent's own through a pod's way that did not arrive.",
    labels: ['direction'],
  })
  const kubelet = metrics.gauge({
    name: 'ambit_kubelet_exempt',
    help: "1 where the kubelet's probes pass, also where plaintext is refused.",
    labels: [],
  })
  metrics.beforeScrape(() => {
    kubelet.with().value = prover.kubelet.state === 'exempt' ? 1 : 0
    for (const family of [held, age]) family.forget(() => true)
    const now = clock.now()
    for (const { namespace, name, protected: proved, provedAt } of prover.status()) {
      held.with([namespace, name]).value = proved ? 1 : 0
      age.with([namespace, name]).value = provedAt === undefined ? -1 : Math.max(0, now - provedAt) / 1000
    }
    for (const [what, count] of prover.repairs) repairs.with([what]).value = count
    failures.with(['outbound']).value = prover.failures.outbound
    failures.with(['inbound']).value = prover.failures.inbound
  })
}
