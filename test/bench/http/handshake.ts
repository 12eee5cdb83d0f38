// The suite `handshake`: what it costs to open. The server's side of HBONE alone on its core, a client on the other that opens TLS connections, full
// and resumed, HBONE sessions, and CONNECT streams on pooled sessions; beside them OpenSSL's own server and client. Must not live here: the client (handshake-load.ts).
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { SuiteOptions } from '../main.ts'
import { recordProfiles } from '../profiles.ts'
import { cpuMs, listening, load, nodeBinary, PROXY_CORE, start, type Program } from '../programs.ts'
import { pivot, Samples, type Report } from '../table.ts'
import { parseOpensslTime, type LoadResult } from '../tools.ts'
import { certificates, HBONE_APPS, inNamespace, program } from './world.ts'

const OPENSSL_PORT = 15443
const BASELINE = 'TLS 1.3, mutual, OpenSSL (s_server, s_time)'
const MODES = [
  ['tls', 'TLS 1.3, mutual, full'],
  ['resumed', 'TLS 1.3, mutual, resumed'],
  ['session', 'HBONE session, CONNECT, one answer'],
  ['stream', 'CONNECT on a pooled session, one answer'],
] as const

const NOTES = [
  'Core 1: the server (test/bench/http/hbone-app.ts, what an agent accepts with). Core 0: a client that keeps 16 openings in flight and cuts each at its first byte.',
  "CPU: of the server, per opening. A transport without resumption shows the full handshake's figures in the line 'resumed'. s_time opens one at a time.",
] as const

export async function benchHandshake({ rounds, seconds, say, only, profile }: SuiteOptions): Promise<Report> {
  const code = inNamespace()
  if (code !== undefined) process.exit(code)
  const folder = mkdtempSync(join(tmpdir(), 'ambit-bench-'))
  chmodSync(folder, 0o755)
  const programs: Program[] = []
  try {
    const files = await certificates(join(folder, 'ca'), folder, ['client', 'secure'])
    const [host] = HBONE_APPS
    const server = start(
      'hbone-app',
      PROXY_CORE,
      [nodeBinary, program('hbone-app.ts'), '--listen', host, ...files('secure')],
      folder,
    )
    programs.push(server)
    await listening(server, host, 15008)
    const pem = (account: string): string[] => [
      ...['-cert', join(folder, `${account}.pem`), '-key', join(folder, `${account}.key`)],
      ...['-CAfile', join(folder, 'ca', 'root-cert.pem')],
    ]
    const openssl = start(
      'openssl',
      PROXY_CORE,
      // prettier-ignore
      ['openssl', 's_server', '-accept', `${host}:${OPENSSL_PORT}`, ...pem('secure'), '-Verify', '2', '-verify_return_error', '-tls1_3', '-quiet', '-naccept', '100000000'],
      folder,
    )
    programs.push(openssl)
    await listening(openssl, host, OPENSSL_PORT)

    const run = async (mode: string): Promise<LoadResult> => {
      const command = [nodeBinary, program('handshake-load.ts'), '--mode', mode, '--server', host, ...files('client')]
      const text = await load([...command, '--seconds', String(seconds)], seconds * 1000 + 20_000, folder)
      const result = JSON.parse(text) as LoadResult & { firstError: string }
      if (result.errors > 0)
        throw new Error(`${mode}: ${result.errors} of ${result.requests} failed: ${result.firstError}`)
      return result
    }
    const reference = async (): Promise<LoadResult> => {
      const text = await load(
        // prettier-ignore
        ['openssl', 's_time', '-connect', `${host}:${OPENSSL_PORT}`, ...pem('client'), '-verify', '2', '-new', '-time', String(seconds)],
        seconds * 1000 + 20_000,
        folder,
      )
      return parseOpensslTime(text)
    }
    const modes = MODES.filter(([, title]) => only === undefined || title.includes(only))
    if (profile !== undefined) {
      await recordProfiles(
        profile,
        [{ name: 'server', pid: server.pid }],
        modes.map(([mode, title]) => ({ name: title, run: async () => void (await run(mode)) })),
      )
      return { rows: [], notes: [], targets: [] }
    }
    const samples = new Samples()
    const measure = async (title: string, pid: number, task: () => Promise<LoadResult>): Promise<void> => {
      const before = cpuMs(pid)
      const { requests, requestsPerSecond, p50Ms, p99Ms } = await task()
      const cpu = ((cpuMs(pid) - before) * 1000) / requests
      const add = (metric: string, value: number, unit: string): void =>
        samples.add(`${title}: ${metric}`, value, unit, title === BASELINE ? '' : `${BASELINE}: ${metric}`)
      add('openings', requestsPerSecond, '1/s')
      add('p50', p50Ms, 'ms')
      add('p99', p99Ms, 'ms')
      add('CPU', cpu, 'µs')
      add('per core', 1_000_000 / cpu, '1/s')
    }
    for (const [mode] of modes) await run(mode)
    for (let round = 1; round <= rounds; round++) {
      say(`round ${round} of ${rounds}`)
      await measure(BASELINE, openssl.pid, reference)
      for (const [mode, title] of modes) await measure(title, server.pid, () => run(mode))
    }
    const rows = samples.rows()
    const table = pivot(rows, [
      { metric: 'openings', title: 'openings/s', spread: true },
      { metric: 'p50', title: 'p50 ms' },
      { metric: 'p99', title: 'p99 ms' },
      { metric: 'CPU', title: 'CPU µs' },
      { metric: 'per core', title: 'per core', ratio: 'to OpenSSL' },
    ])
    return { rows, notes: NOTES, targets: [], table }
  } finally {
    for (const one of programs.reverse()) await one.stop()
    rmSync(folder, { recursive: true, force: true })
  }
}
