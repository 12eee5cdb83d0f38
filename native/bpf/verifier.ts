// How much work the kernel's verifier has with each program of bpf/*.bpf.c: recorded in bpf/verifier.json by
// `agent/bin/node native/bpf/verifier.ts` (as root), held to it by test/kernel/verifier.test.ts. Must not live here: test programs.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { basename, join } from 'node:path'
import { hasFeature, type FeatureName } from './features.ts'
import { openObject } from './object.ts'

const root = join(import.meta.dirname, '../..')
const file = join(root, 'bpf/verifier.json')

/** How to record anew; stands in the file and in what the guard says. */
export const recordCommand = 'sudo agent/bin/node native/bpf/verifier.ts'

/** Growth that the guard lets pass: a program may cost this many times what is recorded, on the kernel it was recorded on. */
export const GROWTH = 1.2
/** Another kernel's verifier prunes otherwise: there the bound is wider by this factor. */
export const OTHER_KERNEL_SLACK = 1.5

export interface VerifierRecord {
  /** The command that makes this file. */
  readonly command: string
  /** Kernel of the numbers, major.minor. */
  readonly kernel: string
  /** Object → program → instructions processed. */
  readonly instructions: Readonly<Record<string, Readonly<Record<string, number>>>>
}

/** Programs that a kernel need not take, and what it must have for them; as agent/node/redirect chooses. */
const conditional: Readonly<Record<string, FeatureName>> = { ambit_live: 'iterator:bpf_sk_storage_map' }

/** major.minor of a kernel release. */
export function kernelSeries(of = release()): string {
  return of.split('.').slice(0, 2).join('.')
}

/** What is committed. */
export function recorded(): VerifierRecord {
  return JSON.parse(readFileSync(file, 'utf8')) as VerifierRecord
}

/** Loads every object of bpf/ (not those of bpf/test) into this kernel and asks what its verifier went through. */
export async function measure(): Promise<VerifierRecord> {
  const instructions: Record<string, Record<string, number>> = {}
  const sources = readdirSync(join(root, 'bpf')).filter((name) => name.endsWith('.bpf.c'))
  for (const name of sources.map((source) => basename(source, '.bpf.c')).toSorted()) {
    const object = openObject(join(root, 'bpf/build', `${name}.bpf.o`))
    const refused = Object.keys(object.programs).filter((one) => conditional[one] && !hasFeature(conditional[one]))
    for (const one of refused) object.programs[one]!.autoload = false
    using module = await object.load()
    const old = recorded().instructions[name]
    instructions[name] = Object.fromEntries(
      Object.keys(object.programs)
        // What this kernel does not take costs what another one said.
        .map(
          (one) =>
            [one, refused.includes(one) ? (old?.[one] ?? 0) : module.programs[one]!.verifiedInstructions] as const,
        )
        .toSorted(([a], [b]) => (a < b ? -1 : 1)),
    )
  }
  return { command: recordCommand, kernel: kernelSeries(), instructions }
}

/** A line for each program that is not within its bound, new, or gone. Empty: all is well. */
export function complaints(record: VerifierRecord, now: VerifierRecord): string[] {
  const slack = record.kernel === now.kernel ? 1 : OTHER_KERNEL_SLACK
  const flat = (from: VerifierRecord): Map<string, number> =>
    new Map(
      Object.entries(from.instructions).flatMap(([object, programs]) =>
        Object.entries(programs).map(([program, count]) => [`${object}/${program}`, count] as const),
      ),
    )
  const [before, after] = [flat(record), flat(now)]
  const out: string[] = []
  for (const [name, count] of after) {
    const old = before.get(name)
    const bound = old === undefined ? 0 : Math.floor(old * GROWTH * slack)
    if (old === undefined) out.push(`${name} is not recorded (${count} instructions)`)
    else if (count > bound) {
      out.push(`${name}: ${count} instructions processed, recorded ${old} on ${record.kernel}, at most ${bound} here`)
    }
  }
  for (const name of before.keys()) if (!after.has(name)) out.push(`${name} is recorded but no longer there`)
  return out
}

if (import.meta.main) writeFileSync(file, `${JSON.stringify(await measure(), null, 2)}\n`)
