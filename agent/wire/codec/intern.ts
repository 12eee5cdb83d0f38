// Values that thousands of resources have in common, held once: names of namespaces and nodes, labels, port maps. A mesh of ten
// thousand workloads is a third of the size for it. Must not live here: anything that is changed after it was decoded.

/** Distinct values held; what comes after starts a new set, and what was decoded before stays as it is. */
const MAX_VALUES = 65_536

const texts = new Map<string, string>()
const records = new Map<string, Readonly<Record<string, unknown>>>()

/** The same text, the one that came first. For texts that repeat: a workload's own name does not. */
export function sharedText(text: string): string {
  const known = texts.get(text)
  if (known !== undefined) return known
  if (texts.size >= MAX_VALUES) texts.clear()
  texts.set(text, text)
  return text
}

/** The same record, the one that came first; frozen. For plain records of texts, numbers and such records. */
export function sharedRecord<R extends Readonly<Record<string, unknown>>>(record: R): R {
  const key = JSON.stringify(record)
  const known = records.get(key)
  if (known !== undefined) return known as R
  if (records.size >= MAX_VALUES) records.clear()
  records.set(key, Object.freeze(record))
  return record
}
