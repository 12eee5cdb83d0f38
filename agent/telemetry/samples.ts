// A strict reader of the Prometheus text format, for tests. Must not be imported by anything but tests.

export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

/** Reads the text format strictly, by the grammar of the format's documentation; throws at the first line it cannot read. */
export function parseExposition(text: string): { samples: Sample[]; types: Map<string, string> } {
  const samples: Sample[] = []
  const types = new Map<string, string>()
  if (!text.endsWith('\n')) throw new Error('the last line has no line feed')
  for (const line of text.slice(0, -1).split('\n')) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*)$/.exec(line)
    if (comment) {
      if (comment[1] === 'TYPE') {
        if (types.has(comment[2] as string)) throw new Error(`second TYPE of ${comment[2]}`)
        types.set(comment[2] as string, comment[3] as string)
      }
      continue
    }
    const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (!match) throw new Error(`not a sample: ${line}`)
    const labels: Record<string, string> = {}
    let rest = match[2] ?? ''
    while (rest !== '') {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\["\\n])*)"(?:,|$)/.exec(rest)
      if (!label) throw new Error(`not a label: ${rest}`)
      labels[label[1] as string] = (label[2] as string).replace(/\\(.)/g, (_all, char) => (char === 'n' ? '\n' : char))
      rest = rest.slice(label[0].length)
    }
    const raw = match[3] as string
    const value = raw === '+Inf' ? Infinity : raw === '-Inf' ? -Infinity : Number(raw)
    if (raw.toLowerCase() !== 'nan' && Number.isNaN(value)) throw new Error(`not a number: ${raw}`)
    samples.push({ name: match[1] as string, labels, value })
  }
  return { samples, types }
}
