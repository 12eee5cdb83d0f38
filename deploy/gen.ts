// `npm run gen`: regenerates everything that is generated and committed. `--check` writes nothing, compares with what is
// committed and exits 1 naming the stale files. Must not live here: the generators themselves.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'
import { findHelm, manifest } from './chart/manifest.ts'

const root = dirname(import.meta.dirname)

/** A generator elsewhere in the tree: writes below `out` (default its own folder) and returns what it wrote. */
interface Generator {
  readonly name: string
  /** Committed folder, relative to the root. */
  readonly folder: string
  /** Files of the folder that are made, when others beside them are written by hand; absent: all. */
  readonly files?: readonly string[]
  generate(out: string): void | Promise<void>
}

/** Runs a node script of node_modules with the binaries of node_modules on the path; throws with its output. */
function runTool(script: string, args: readonly string[], cwd: string): void {
  const bin = join(root, 'node_modules', '.bin')
  // The plugin is a script with `env node` in its first line: give it the node that runs this one.
  const path = [bin, dirname(process.execPath), process.env['PATH'] ?? ''].join(delimiter)
  const done = spawnSync(process.execPath, [script, ...args], {
    cwd,
    env: { ...process.env, PATH: path },
    encoding: 'utf8',
    timeout: 120_000,
  })
  if (done.status !== 0) throw new Error(`${script} ${args.join(' ')} failed:\n${done.stdout}${done.stderr}`)
}

const protobuf: Generator = {
  name: 'protobuf',
  folder: 'agent/wire/gen',
  generate(out) {
    const work = mkdtempSync(join(tmpdir(), 'ambit-gen-'))
    try {
      // In a copy, because `clean` empties the output folder first and a failed run must not leave it empty.
      for (const part of ['proto', 'buf.yaml', 'buf.gen.yaml']) {
        cpSync(join(root, 'agent/wire', part), join(work, part), { recursive: true })
      }
      runTool(join(root, 'node_modules/@bufbuild/buf/bin/buf'), ['generate'], work)
      rmSync(out, { recursive: true, force: true })
      cpSync(join(work, 'gen'), out, { recursive: true })
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  },
}

/** Generators of other rooms: a module that exports `generate(out: string)` for the folder beside it. */
async function roomGenerators(): Promise<Generator[]> {
  const found: Generator[] = []
  for (const [name, module, folder] of [
    ['bpf', 'native/bpf/gen.ts', 'native/bpf/gen'],
    ['crds', 'deploy/chart/crds.ts', 'deploy/chart/crds'],
    ['reference', 'deploy/reference/gen.ts', 'deploy/reference'],
  ] as const) {
    const file = join(root, module)
    if (!existsSync(file)) continue
    const loaded = (await import(pathToFileURL(file).href)) as {
      generate?: Generator['generate']
      GENERATED?: readonly string[]
    }
    if (!loaded.generate) throw new Error(`${module} does not export generate(out).`)
    const files = loaded.GENERATED
    found.push({ name, folder, generate: loaded.generate, ...(files ? { files } : {}) })
  }
  return found
}

/** Paths below both folders whose content differs, relative to `a`; of all files or of those named. */
function differences(a: string, b: string, files?: readonly string[]): string[] {
  const list = (folder: string): string[] =>
    existsSync(folder)
      ? readdirSync(folder, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
      : []
  const names = files ?? [...new Set([...list(a), ...list(b)])]
  const read = (file: string): string | undefined => (existsSync(file) ? readFileSync(file, 'latin1') : undefined)
  return names.filter((name) => read(join(a, name)) !== read(join(b, name))).toSorted()
}

/** Regenerates (or, with `check`, compares). Returns the stale files, relative to the root; `only` names one generator. */
export async function generateAll(options: { check?: boolean; only?: string } = {}): Promise<string[]> {
  const stale: string[] = []
  for (const generator of [protobuf, ...(await roomGenerators())]) {
    if (options.only && generator.name !== options.only) continue
    const committed = join(root, generator.folder)
    if (!options.check) {
      await generator.generate(committed)
      console.log(`${generator.name}: wrote ${generator.folder}`)
      continue
    }
    const work = mkdtempSync(join(tmpdir(), 'ambit-gen-check-'))
    try {
      const out = join(work, 'out')
      await generator.generate(out)
      stale.push(...differences(committed, out, generator.files).map((name) => join(generator.folder, name)))
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  }
  return stale
}

if (import.meta.main) {
  const helm = findHelm()
  if (helm !== undefined && !process.argv.includes('--check'))
    writeFileSync(join(root, 'deploy/ambit.yaml'), manifest(helm))
  const stale = await generateAll({ check: process.argv.includes('--check') })
  for (const name of stale)
    console.error(`${name} is not what the sources generate. Run \`npm run gen\` and commit it.`)
  process.exitCode = stale.length > 0 ? 1 : 0
}
