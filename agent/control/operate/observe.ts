// What is measured of the making of waypoints. Must not live here: counting (term.ts).
import type { Metrics } from '../../telemetry/exposition.ts'
import type { Operator } from './operator.ts'

/** Adds its families to the program's metrics. */
export function observeWaypoints(operator: Operator, metrics: Metrics): void {
  const writes = metrics.counter({
    name: 'ambit_control_waypoint_writes_total',
    help: 'Objects of waypoints written to the API server, by what for.',
    labels: ['what'],
  })
  const waypoints = metrics.gauge({
    name: 'ambit_control_waypoints',
    help: 'Waypoint Gateways by state of their objects; none on a replica that does not lead.',
    labels: ['state'],
  })
  const kinds = ['applied', 'repaired', 'removed', 'failed'] as const
  metrics.beforeScrape(() => {
    for (const what of kinds) writes.with([what]).value = operator.counts[what]
    const states = operator.states()
    for (const state of ['made', 'problem'] as const) waypoints.with([state]).value = states[state]
  })
}
