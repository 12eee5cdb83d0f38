// Finds labelled things of a namespace by a selector without looking at each: the rarest wanted label decides where to
// look. With ten thousand pods and a selector per service that is what keeps a translation short.
import { selects } from '../mesh/applicable.ts'

type Labels = Readonly<Record<string, string>>

interface Entry<T> {
  readonly labels: Labels
  readonly item: T
}

interface Shelf<T> {
  readonly all: Entry<T>[]
  /** By `key=value`. */
  readonly byLabel: Map<string, Entry<T>[]>
}

const EMPTY: readonly never[] = []

export class LabelIndex<T> {
  readonly #shelves = new Map<string, Shelf<T>>()

  add(namespace: string, labels: Labels, item: T): void {
    let shelf = this.#shelves.get(namespace)
    if (!shelf) this.#shelves.set(namespace, (shelf = { all: [], byLabel: new Map() }))
    const entry = { labels, item }
    shelf.all.push(entry)
    for (const text of textsOf(labels)) {
      const list = shelf.byLabel.get(text)
      if (list) list.push(entry)
      else shelf.byLabel.set(text, [entry])
    }
  }

  /** Items of the namespace (of every one if undefined) that have all the labels, in the order they were added. */
  find(namespace: string | undefined, wanted: Labels): T[] {
    const found: T[] = []
    for (const shelf of this.#of(namespace)) {
      for (const entry of candidates(shelf, wanted)) if (selects(wanted, entry.labels)) found.push(entry.item)
    }
    return found
  }

  some(namespace: string | undefined, wanted: Labels): boolean {
    return this.#of(namespace).some((shelf) => candidates(shelf, wanted).some((entry) => selects(wanted, entry.labels)))
  }

  #of(namespace: string | undefined): readonly Shelf<T>[] {
    if (namespace === undefined) return [...this.#shelves.values()]
    const shelf = this.#shelves.get(namespace)
    return shelf ? [shelf] : EMPTY
  }
}

const texts = new WeakMap<Labels, readonly string[]>()

/** Of the same object only once: an index is made anew for each translation. */
function textsOf(labels: Labels): readonly string[] {
  let known = texts.get(labels)
  if (!known) texts.set(labels, (known = Object.entries(labels).map(([key, value]) => `${key}=${value}`)))
  return known
}

function candidates<T>(shelf: Shelf<T>, wanted: Labels): readonly Entry<T>[] {
  let best: readonly Entry<T>[] = shelf.all
  for (const key in wanted) {
    const list = shelf.byLabel.get(`${key}=${wanted[key]}`) ?? EMPTY
    if (list.length < best.length) best = list
  }
  return best
}
