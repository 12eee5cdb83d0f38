// What is seen of the kernel's tables in metrics. Must not live here: the tables.
import type { Metrics } from '../../telemetry/exposition.ts'
import type { TableSync } from './sync.ts'

export function tableMetrics(metrics: Metrics, tables: TableSync): void {
  const synced = metrics.gauge({
    name: 'ambit_kernel_tables_synced',
    help: "1 while the kernel's tables hold the mesh and it decides by them.",
    labels: [],
  })
  const direct = metrics.gauge({
    name: 'ambit_kernel_pods_direct',
    help: 'Captured pods for which the kernel decides what becomes of what they dial.',
    labels: [],
  })
  const rows = metrics.counter({
    name: 'ambit_kernel_rows_written_total',
    help: "Rows written into the kernel's tables.",
    labels: ['table'],
  })
  const failures = metrics.counter({
    name: 'ambit_kernel_table_failures_total',
    help: "Times that the kernel's tables could not be written, and everything went through the agent.",
    labels: [],
  })
  const seconds = metrics.gauge({
    name: 'ambit_kernel_sync_seconds',
    help: 'How long it took to write the tables the last time: all of them, or what a change made stale.',
    labels: ['what'],
  })
  metrics.beforeScrape(() => {
    const status = tables.status()
    synced.with().value = status.synced ? 1 : 0
    direct.with().value = status.direct
    failures.with().value = status.failures
    for (const [table, count] of Object.entries(status.written)) rows.with([table]).value = count
    seconds.with(['all']).value = status.fullMs / 1_000
    seconds.with(['change']).value = status.changeMs / 1_000
  })
}
