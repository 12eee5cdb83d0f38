// Everything a program measures, as Prometheus text (format 0.0.4): process metrics through prom-client's registry, hot
// families through our own plain fields. One Metrics object per program. Must not live here: serving it (admin.ts).
import { collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { CounterFamily, GaugeFamily, HistogramFamily, type FamilyOptions, type Rendered } from './series.ts'

export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * Gauges of prom-client that are called like counters, and those beside them: each scrape lists every socket of the process
 * for them, and our own gauges of connections and tunnels say more.
 */
const UNWANTED = ['handles', 'requests', 'resources'].flatMap((what) => [
  `nodejs_active_${what}`,
  `nodejs_active_${what}_total`,
])

export class Metrics {
  /** For cold metrics of a room: gauges with a `collect` function, counters touched a few times a second at most. */
  readonly registry = new Registry()
  readonly #families: Rendered[] = []
  readonly #before: (() => void)[] = []
  readonly #overflow: CounterFamily

  /** `component`, `tag`: labels of `istio_build`. */
  constructor(component: string, tag: string) {
    collectDefaultMetrics({ register: this.registry })
    for (const name of UNWANTED) this.registry.removeSingleMetric(name)
    const build = new Gauge({
      name: 'istio_build',
      help: 'Build of the component.',
      labelNames: ['component', 'tag'],
      registers: [this.registry],
    })
    build.set({ component, tag }, 1)
    this.#overflow = new CounterFamily({
      name: 'ambit_series_overflow_total',
      help: 'Series refused because their family was full; they are counted in the series labelled overflow.',
      labels: ['family'],
    })
  }

  counter(options: FamilyOptions): CounterFamily {
    return this.add(new CounterFamily(options))
  }

  gauge(options: FamilyOptions): GaugeFamily {
    return this.add(new GaugeFamily(options))
  }

  histogram(options: FamilyOptions & { readonly bounds: readonly number[] }): HistogramFamily {
    return this.add(new HistogramFamily(options))
  }

  /** Adds a family made elsewhere. */
  add<F extends Rendered>(family: F): F {
    if (this.#families.some((other) => other.name === family.name)) {
      throw new TypeError(`a family called ${family.name} exists already`)
    }
    this.#families.push(family)
    return family
  }

  /** Runs before each scrape, to read what lives elsewhere (kernel counters, pool sizes) into gauges. */
  beforeScrape(task: () => void): void {
    this.#before.push(task)
  }

  /** The whole exposition. */
  async text(): Promise<string> {
    for (const task of this.#before) task()
    const cold = await this.registry.metrics()
    const out: string[] = [cold]
    if (!cold.endsWith('\n')) out.push('\n')
    for (const family of this.#families) {
      family.render(out)
      if (family.overflowed > 0) this.#overflow.with([family.name]).value = family.overflowed
    }
    this.#overflow.render(out)
    return out.join('')
  }
}
