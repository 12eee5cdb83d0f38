// `npm run bench [SUITE] [-- --json FILE] [--rounds N] [--seconds N]`: one table from one run. Suites live beside this file;
// `mesh` is the default. No test fails on a time; ratios to the baseline of the same run are what counts.
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { benchControl } from './control/suite.ts'
import { benchHttp } from './http/suite.ts'
import { benchHandshake } from './http/handshake.ts'
import { benchKernel } from './kernel/suite.ts'
import { benchMesh } from './mesh.ts'
import { plainTable, type Report } from './table.ts'
import { targetsText } from './targets.ts'
import { benchTunnel } from './tunnel.ts'

const SUITES: Readonly<Record<string, (options: SuiteOptions) => Promise<Report>>> = {
  mesh: benchMesh,
  http: benchHttp,
  tunnel: benchTunnel,
  handshake: benchHandshake,
  kernel: benchKernel,
  control: benchControl,
}

export interface SuiteOptions {
  readonly rounds: number
  readonly seconds: number
  /** Only the cases whose name contains this. */
  readonly only: string | undefined
  /** Instead of measuring, profiles the measured programs of the mesh, into this folder. */
  readonly profile: string | undefined
  readonly say: (text: string) => void
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    only: { type: 'string' },
    profile: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

if (values.help) {
  console.log(`npm run bench [-- SUITE] [--json FILE] [--rounds N] [--seconds N] [--only TEXT] [--profile DIR]

Suites:
  mesh           a world of two nodes: no mesh, mesh, waypoint, nginx, HAProxy (default)
  http           the waypoint on one core beside nginx, HAProxy and Envoy: HTTP/1.1, HBONE, HTTP/2, gRPC, 1 MB bodies
  tunnel         agent to agent across two nodes, each end's app and agent on one core, beside the same path without a mesh
  handshake      TLS handshakes, HBONE sessions and CONNECT streams per second, beside OpenSSL's own server
  kernel         two pods of one node: no mesh beside the direct path with policy on; what each kernel program costs; scale of the tables
  control        the control plane on a real API server, 1 000 and 10 000 pods, a hundred agents: from an edit to the last agent, bytes, memory

  --json FILE    {suite, notes, rows: [{name, value, unit, baseline, ratio, min, max}], targets} as JSON
  --rounds N     rounds, interleaved over all rows; the table shows medians (default 3)
  --seconds N    length of one measurement (default 3)
  --only TEXT    only the cases whose name contains this text, for instance "HBONE" or "32 connections: Ambit"
  --profile DIR  instead of the table: a CPU profile of each case of Ambit's own into DIR, and the functions with the most self time

Example: npm run bench -- http --json bench.json`)
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
const { rounds, seconds, only, profile } = values
const report = await suite({ rounds: Number(rounds), seconds: Number(seconds), only, profile, say })
if (report.rows.length > 0) {
  for (const note of report.notes) console.log(note)
  console.log(`\n${report.table ?? plainTable(report.rows)}`)
  // With --only the rows of some targets are not there on purpose.
  const targets = only === undefined ? report.targets : report.targets.filter(({ met }) => met !== null)
  if (targets.length > 0) console.log(`\n${targetsText(targets)}`)
}
if (values.json !== undefined) {
  const { notes, rows, targets } = report
  writeFileSync(values.json, `${JSON.stringify({ suite: name, notes, rows, targets }, null, 2)}\n`)
  say(`wrote ${values.json}`)
}
process.exit(report.rows.length > 0 || profile !== undefined ? 0 : 1)
