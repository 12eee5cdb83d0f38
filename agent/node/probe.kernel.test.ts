// The probe as a Job runs it: the whole program, on this kernel.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { execFile } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ProbeReport } from './probe.ts'

const ambit = new URL('../bin/ambit', import.meta.url).pathname

function probe(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number; report: ProbeReport }> {
  return new Promise((resolve, reject) => {
    execFile(ambit, ['agent', '--probe', ...args], { env: { ...process.env, ...env } }, (error, out) => {
      const code = error ? Number(error.code) : 0
      try {
        resolve({ code, report: JSON.parse(out) as ProbeReport })
      } catch {
        reject(new Error(`exit ${code}: ${out}`))
      }
    })
  })
}

describe('ambit agent --probe', () => {
  let folder: string
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'ambit-probe-'))))
  afterAll(() => rmSync(folder, { recursive: true }))
  const codes = ({ problems }: ProbeReport): string[] => problems.map(({ code }) => code)
  const network = (name: string, text: object): string => {
    const confDir = join(folder, name)
    mkdirSync(confDir)
    writeFileSync(join(confDir, '10-x.conflist'), JSON.stringify(text))
    return confDir
  }
  // A cgroup that is there on every machine: which one it is is not what is tried here.
  const cgroup = '--cgroup=/sys/fs/cgroup'

  it('finds nothing wrong with this machine, and leaves nothing', async () => {
    const confDir = network('a', { cniVersion: '1.0.0', name: 'x', plugins: [{ type: 'bridge' }] })
    const { code, report } = await probe([
      '--node=here',
      cgroup,
      '--pin-root=/sys/fs/bpf/ambit-probe-none',
      `--cni-conf-dir=${confDir}`,
      `--cni-bin-dir=${folder}`,
    ])
    expect(report.problems.filter(({ severity }) => severity === 'error')).toEqual([])
    expect(code).toBe(0)
    expect(report).toMatchObject({
      node: 'here',
      features: { 'program:sk_lookup': true, btf: true },
      cni: { file: join(confDir, '10-x.conflist'), chained: false },
    })
  })

  it('names what is missing, and exits 1', async () => {
    const { code, report } = await probe(
      [cgroup, `--pin-root=${folder}/x`, `--cni-conf-dir=${folder}/none`, `--cni-bin-dir=${folder}/none`],
      { AMBIT_FEATURES_OFF: 'program:sk_lookup,link:tcx' },
    )
    expect(code).toBe(1)
    expect(codes(report)).toEqual([
      'REDIRECT_FEATURE_MISSING',
      'REDIRECT_NO_BPFFS',
      'PROBE_FEATURE_LACKING',
      'CNI_FILE',
      'CNI_FILE',
    ])
    expect(report.rung.name).toBe('no_guard')
  })
})
