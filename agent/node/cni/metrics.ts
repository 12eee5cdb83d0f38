// Whether new pods meet the plugin, as Prometheus sees it. Must not live here: how it is kept so (keeper.ts).
import type { Metrics } from '../../telemetry/exposition.ts'
import type { CniKeeper } from './keeper.ts'

export function cniMetrics(metrics: Metrics, keeper: CniKeeper): void {
  const chained = metrics.gauge({
    name: 'ambit_cni_chained',
    help: '1 while the plugin is in the network configuration that the runtime of this node takes.',
    labels: [],
  })
  const written = metrics.counter({
    name: 'ambit_cni_chained_total',
    help: 'How often the plugin was put into a network configuration.',
    labels: [],
  })
  metrics.beforeScrape(() => {
    chained.with().value = keeper.status.chained ? 1 : 0
    written.with().value = keeper.status.written
  })
}
