// One exposition out of many: the workers' metrics as if they were one program's. Counters and histograms are summed and never
// fall, also when a worker dies; gauges are summed where a sum means something. Must not live here: asking workers for theirs.

interface ParsedFamily {
  readonly type: string
  /** The HELP and TYPE lines. */
  readonly head: string
  /** `name{labels}` → value. */
  readonly samples: Map<string, number>
}

type Parsed = Map<string, ParsedFamily>

/** Series kept of workers that are gone, a family; what is beyond is lost from the sums. As many as a family may have. */
const MAX_RETIRED = 10_000

/** Gauges of which the largest is shown: states of a process, of which a sum would say nothing. */
const LARGEST = /^(nodejs_eventloop_lag_|process_max_fds$|istio_build$|ambit_waypoint_overloaded$)|_info$/
/** … and the smallest: the oldest process. */
const SMALLEST = /^process_start_time_seconds$/

/** Reads Prometheus text as our own exposition writes it: families in one piece, no timestamps. */
export function parseExposition(text: string): Parsed {
  const families: Parsed = new Map()
  let help = ''
  let family: ParsedFamily | undefined
  for (const line of text.split('\n')) {
    if (line.startsWith('# HELP ')) help = line
    else if (line.startsWith('# TYPE ')) {
      const [, , name = '', type = ''] = line.split(' ')
      family = { type, head: `${help}\n${line}\n`, samples: new Map() }
      families.set(name, family)
    } else if (line !== '' && line[0] !== '#' && family) {
      const blank = line.lastIndexOf(' ')
      family.samples.set(line.slice(0, blank), valueOf(line.slice(blank + 1)))
    }
  }
  return families
}

function valueOf(text: string): number {
  return text === '+Inf' ? Infinity : text === '-Inf' ? -Infinity : Number(text)
}

function textOf(value: number): string {
  return value === Infinity ? '+Inf' : value === -Infinity ? '-Inf' : String(value)
}

function add(to: Parsed, from: Parsed, onlyCounters: boolean): void {
  for (const [name, family] of from) {
    const counts = family.type !== 'gauge' && family.type !== 'untyped'
    if (onlyCounters && !counts) continue
    let target = to.get(name)
    if (!target) to.set(name, (target = { type: family.type, head: family.head, samples: new Map() }))
    const combine = counts ? plus : LARGEST.test(name) ? Math.max : SMALLEST.test(name) ? Math.min : plus
    for (const [series, value] of family.samples) {
      const known = target.samples.get(series)
      if (known !== undefined) target.samples.set(series, combine(known, value))
      else if (!onlyCounters || target.samples.size < MAX_RETIRED) target.samples.set(series, value)
    }
  }
}

function plus(a: number, b: number): number {
  return a + b
}

export class MergedMetrics {
  readonly #retired: Parsed = new Map()

  /** The last exposition of a process that is gone: its counters stay in the sum. */
  retire(text: string): void {
    add(this.#retired, parseExposition(text), true)
  }

  /** The sum of these and of those retired. */
  merge(texts: readonly string[]): string {
    const sum: Parsed = new Map()
    for (const text of texts) add(sum, parseExposition(text), false)
    add(sum, this.#retired, false)
    const out: string[] = []
    for (const { head, samples } of sum.values()) {
      out.push(head)
      for (const [series, value] of samples) out.push(`${series} ${textOf(value)}\n`)
    }
    return out.join('')
  }
}
