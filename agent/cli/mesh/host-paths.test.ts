import { describe, expect, it } from 'vitest'
import { pathsOf } from './host-paths.ts'
import { DEFAULT_PATHS } from './node-jobs.ts'

describe('paths of an agent on its node', () => {
  it("are the chart's where nothing else is said", () => {
    expect(pathsOf()).toEqual(DEFAULT_PATHS)
    expect(pathsOf(['agent', '--node=x'])).toEqual(DEFAULT_PATHS)
  })

  it('are read from its flags in both spellings', () => {
    const args = [
      'agent',
      '--pin-root=/bpf/mesh/v',
      '--cni-conf-dir',
      '/k3s/net.d',
      '--cni-bin-dir=/k3s/bin',
      '--socket=/var/run/x/agent.sock',
    ]
    expect(pathsOf(args)).toEqual({
      ...DEFAULT_PATHS,
      pinRoot: '/bpf/mesh/v',
      bpffs: '/bpf/mesh',
      cniConf: '/k3s/net.d',
      cniBin: '/k3s/bin',
      run: '/var/run/x',
    })
  })
})
