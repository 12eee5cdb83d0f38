// Hot metrics as plain fields: a series is looked up once per edge, its labels are rendered once, and counting is one
// addition. Families are bounded: beyond the limit everything lands in one series labelled `overflow`, and that is
// counted. Must not live here: process metrics (exposition.ts), which labels Istio uses (istio.ts).

/** Series per family unless said otherwise. A family of 10 000 renders in some tens of milliseconds. */
export const DEFAULT_LIMIT = 10_000

/** Value of every label of the series that takes what is beyond the limit. */
export const OVERFLOW = 'overflow'

export interface FamilyOptions {
  readonly name: string
  readonly help: string
  readonly labels: readonly string[]
  /** Most series, DEFAULT_LIMIT. */
  readonly limit?: number
}

/** `{a="1",b="2"}` with the escapes of the text format; '' without labels. */
export function renderLabels(names: readonly string[], values: readonly string[]): string {
  if (names.length === 0) return ''
  let text = '{'
  for (let i = 0; i < names.length; i++) {
    text += `${i > 0 ? ',' : ''}${names[i]}="${escapeLabel(values[i] ?? '')}"`
  }
  return `${text}}`
}

const SPECIAL = /[\\"\n]/

function escapeLabel(value: string): string {
  if (!SPECIAL.test(value)) return value
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}

/** One series of a counter or gauge. Add to `value` or call `add`. */
export class Series {
  /** Rendered labels. */
  readonly labels: string
  readonly values: readonly string[]
  value = 0
  /** Its family has forgotten it. */
  dropped = false

  constructor(labels: string, values: readonly string[]) {
    this.labels = labels
    this.values = values
  }

  add(amount: number): void {
    this.value += amount
  }
}

/** One series of a histogram. */
export class HistogramSeries {
  readonly labels: string
  readonly values: readonly string[]
  readonly bounds: Float64Array
  /** Not cumulative; the last one counts what is above every bound. */
  readonly counts: Float64Array
  sum = 0
  count = 0
  /** Its family has forgotten it. */
  dropped = false

  constructor(labels: string, values: readonly string[], bounds: Float64Array) {
    this.labels = labels
    this.values = values
    this.bounds = bounds
    this.counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    const { bounds } = this
    let i = 0
    while (i < bounds.length && value > (bounds[i] as number)) i++
    this.counts[i] = (this.counts[i] as number) + 1
    this.sum += value
    this.count++
  }
}

/** What exposition asks of a family. */
export interface Rendered {
  readonly name: string
  readonly size: number
  /** Lookups that found the family full. */
  readonly overflowed: number
  /** Appends HELP, TYPE and the samples to `out`, in pieces: what is joined once is not copied twice. */
  render(out: string[]): void
}

abstract class Family<
  S extends { readonly labels: string; readonly values: readonly string[]; dropped: boolean },
> implements Rendered {
  readonly name: string
  readonly help: string
  readonly labelNames: readonly string[]
  readonly limit: number
  overflowed = 0
  protected readonly all = new Map<string, S>()
  #overflow: S | undefined

  constructor(options: FamilyOptions) {
    this.name = options.name
    this.help = options.help
    this.labelNames = options.labels
    this.limit = options.limit ?? DEFAULT_LIMIT
  }

  get size(): number {
    return this.all.size
  }

  /**
   * The series with these label values (as many as the family has labels). Look up once and keep it. `labels`: the values
   * rendered, where the caller has them for several families.
   */
  with(values: readonly string[] = [], labels = renderLabels(this.labelNames, values)): S {
    const known = this.all.get(labels)
    if (known) return known
    if (this.all.size >= this.limit) {
      this.overflowed++
      return this.other()
    }
    const series = this.make(labels, [...values])
    this.all.set(labels, series)
    return series
  }

  /** The series labelled `overflow`, for what has no place of its own elsewhere already. */
  other(): S {
    if (!this.#overflow) {
      const overflow = this.labelNames.map(() => OVERFLOW)
      this.#overflow = this.make(renderLabels(this.labelNames, overflow), overflow)
    }
    return this.#overflow
  }

  /** Forgets one series: `with` makes it anew. Still held, it goes on counting unseen, and says that it is `dropped`. */
  drop(series: S): void {
    if (this.all.get(series.labels) !== series) return
    this.all.delete(series.labels)
    series.dropped = true
  }

  /** Forgets series, as those of workloads that are gone. A series still held goes on counting unseen. */
  forget(gone: (values: readonly string[]) => boolean): void {
    for (const [key, series] of this.all) if (gone(series.values)) this.all.delete(key)
  }

  protected *series(): Iterable<S> {
    yield* this.all.values()
    if (this.#overflow) yield this.#overflow
  }

  protected head(out: string[], type: string): void {
    const help = this.help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
    out.push(`# HELP ${this.name} ${help}\n# TYPE ${this.name} ${type}\n`)
  }

  protected abstract make(labels: string, values: readonly string[]): S
  abstract render(out: string[]): void
}

class PlainFamily extends Family<Series> {
  readonly type: 'counter' | 'gauge'

  constructor(options: FamilyOptions, type: 'counter' | 'gauge') {
    super(options)
    this.type = type
  }

  protected override make(labels: string, values: readonly string[]): Series {
    return new Series(labels, values)
  }

  override render(out: string[]): void {
    this.head(out, this.type)
    for (const series of this.series()) out.push(this.name, series.labels, ` ${number(series.value)}\n`)
  }
}

/** A counter: only ever add. The name ends in `_total`. */
export class CounterFamily extends PlainFamily {
  constructor(options: FamilyOptions) {
    super(options, 'counter')
  }
}

/** A gauge: set `value`. */
export class GaugeFamily extends PlainFamily {
  constructor(options: FamilyOptions) {
    super(options, 'gauge')
  }
}

export class HistogramFamily extends Family<HistogramSeries> {
  readonly bounds: Float64Array
  readonly #bucket: string
  /** The last label of each bucket and what follows it. */
  readonly #ends: readonly string[]

  /** `bounds`: upper bounds, ascending, without +Inf. */
  constructor(options: FamilyOptions & { readonly bounds: readonly number[] }) {
    super(options)
    this.bounds = Float64Array.from(options.bounds)
    this.#bucket = `${options.name}_bucket`
    this.#ends = options.bounds.map((bound) => `le="${number(bound)}"} `)
  }

  protected override make(labels: string, values: readonly string[]): HistogramSeries {
    return new HistogramSeries(labels, values, this.bounds)
  }

  override render(out: string[]): void {
    this.head(out, 'histogram')
    for (const series of this.series()) {
      // Without its closing brace; a slice, no copy.
      const [open, comma] = series.labels === '' ? ['{', ''] : [series.labels.slice(0, -1), ',']
      let total = 0
      for (let i = 0; i < this.bounds.length; i++) {
        total += series.counts[i] as number
        out.push(this.#bucket, open, comma, this.#ends[i] as string, `${total}\n`)
      }
      out.push(this.#bucket, open, comma, `le="+Inf"} ${series.count}\n`)
      out.push(this.name, '_sum', series.labels, ` ${number(series.sum)}\n`)
      out.push(this.name, '_count', series.labels, ` ${series.count}\n`)
    }
  }
}

/** A number as the text format writes it. */
function number(value: number): string {
  if (value === Infinity) return '+Inf'
  if (value === -Infinity) return '-Inf'
  return String(value)
}
