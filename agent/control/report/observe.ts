// What is measured of statuses and Events. Must not live here: counting (queue.ts).
import type { Metrics } from '../../telemetry/exposition.ts'
import type { Events } from './events.ts'
import type { Reporter } from './reporter.ts'

/** Adds their families to the program's metrics. */
export function observeReports(reporter: Reporter, events: Events, metrics: Metrics): void {
  const statuses = metrics.counter({
    name: 'ambit_control_status_writes_total',
    help: 'Statuses of resources written to the API server, by outcome.',
    labels: ['outcome'],
  })
  const waiting = metrics
    .gauge({
      name: 'ambit_control_statuses_waiting',
      help: 'Resources whose status is still to be written; 0 on a replica that does not lead.',
      labels: [],
    })
    .with()
  const told = metrics.counter({
    name: 'ambit_control_events_total',
    help: 'Events about resources written to the API server, by outcome; dropped: more than may be told.',
    labels: ['outcome'],
  })
  metrics.beforeScrape(() => {
    for (const outcome of ['written', 'failed'] as const) statuses.with([outcome]).value = reporter.counts[outcome]
    for (const outcome of ['written', 'failed', 'dropped'] as const) told.with([outcome]).value = events.counts[outcome]
    waiting.value = reporter.waiting
  })
}
