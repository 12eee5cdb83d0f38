// `npm run fuzz -- TARGET [--messages N] [--seed S] [--case N]`: generated input against a part that eats untrusted bytes, the same
// for the same seed. Targets live beside this file, one each. Exit 0: nothing found; 1: a finding, printed; 2: wrong use.
import { parseArgs } from 'node:util'
import { runHpack } from './hpack.ts'
import { runHttp1 } from './http1/run.ts'
import { runHttp2 } from './http2.ts'

export interface FuzzOptions {
  /** How many messages to generate. */
  readonly messages: number
  readonly seed: number
  /** Only this case, told in full; -1 for all. */
  readonly only: number
  readonly say: (text: string) => void
}

/** Resolves to true if nothing was found. */
const TARGETS: Readonly<Record<string, (options: FuzzOptions) => Promise<boolean>>> = {
  http1: runHttp1,
  http2: runHttp2,
  hpack: runHpack,
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    messages: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
    case: { type: 'string', default: '-1' },
    help: { type: 'boolean', default: false },
  },
})
const [name = 'help'] = positionals
const target = TARGETS[name]
if (values.help || !target) {
  console.log(`npm run fuzz -- TARGET [--messages N] [--seed S] [--case N]

Targets: ${Object.keys(TARGETS).join(', ')}
  --messages N   how many messages to generate (default 1000000)
  --seed S       a whole number; the same seed gives the same messages (default 1)
  --case N       only this case of the seed, told in full

Example: npm run fuzz -- http1 --messages 10000000 --seed 7`)
  process.exit(values.help ? 0 : 2)
}
const options: FuzzOptions = {
  messages: Number(values.messages),
  seed: Number(values.seed),
  only: Number(values.case),
  say: (text) => console.log(text),
}
process.exit((await target(options)) ? 0 : 1)
