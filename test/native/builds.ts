// Test builds of native/io and how to run a program under them. Must not live here: judging what it says.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeCertificates, type Report } from './torture.ts'

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

export type Variant = 'faults' | 'asan'

export interface Outcome {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** Builds a variant of the addon (nothing to do when it is there) and returns its path. */
export function build(variant: Variant): string {
  execFileSync(join(root, 'native/build.sh'), ['--variant', variant], { stdio: ['ignore', 'ignore', 'inherit'] })
  return join(root, `build/Release/ambit_io.${variant}.node`)
}

/** Where gcc keeps a sanitizer's runtime. */
export function runtime(name: 'libasan.so' | 'libtsan.so'): string {
  return execFileSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' }).trim()
}

export function run(command: string, args: readonly string[], env: Record<string, string>): Promise<Outcome> {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr })))
}

/** A folder with certificates for torture.ts, removed at exit. */
export function certificates(): string {
  const folder = mkdtempSync(join(tmpdir(), 'ambit-native-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'certificates.json')
  writeCertificates(file)
  return file
}

/** Runs torture.ts; its reports, one for each thread. */
export async function torture(
  args: readonly string[],
  env: Record<string, string>,
): Promise<Outcome & { reports: Report[] }> {
  const outcome = await run(process.execPath, [join(root, 'test/native/torture.ts'), ...args], env)
  const line = outcome.stdout.split('\n').find((text) => text.startsWith('[{'))
  return { ...outcome, reports: line === undefined ? [] : (JSON.parse(line) as Report[]) }
}
