// `npm run bench [SUITE] [-- --json FILE] [--rounds N] [--seconds N]`: one table from one run. Suites live beside this file;
// `mesh` is the default. No test fails on a time; ratios to the baseline of the same run are what counts.
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { benchMesh } from './mesh.ts'
import { printTable, type Row } from './table.ts'

const SUITES: Readonly<Record<string, (options: SuiteOptions) => Promise<readonly Row[]>>> = { mesh: benchMesh }

export interface SuiteOptions {
  readonly rounds: number
  readonly seconds: number
  readonly say: (text: string) => void
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) {
  console.log(`npm run bench [-- SUITE] [--json FILE] [--rounds N] [--seconds N]

Suites: ${Object.keys(SUITES).join(', ')} (default: mesh)
  --json FILE    rows {name, value, unit, baseline, ratio, min, max} as JSON
  --rounds N     rounds, interleaved over all rows; the table shows medians (default 3)
  --seconds N    length of one measurement (default 3)

Example: npm run bench -- mesh --json bench.json`)
  process.exit(0)
}

const name = positionals[0] ?? 'mesh'
const suite = SUITES[name]
if (!suite) {
  console.error(`There is no suite '${name}'. Suites: ${Object.keys(SUITES).join(', ')}.`)
  process.exit(2)
}
const say = (text: string): void => {
  process.stderr.write(`${text}\n`)
}
const rows = await suite({ rounds: Number(values.rounds), seconds: Number(values.seconds), say })
printTable(rows)
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify(rows, null, 2)}\n`)
  say(`wrote ${values.json}`)
}
process.exit(rows.length > 0 ? 0 : 1)
