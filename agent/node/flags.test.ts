import { afterEach, describe, expect, it, vi } from 'vitest'
import { parseFlags } from './flags.ts'

const needed = '--node n --control c:1 --root-cert r --token-file t --cgroup g --pin-root p --socket s --state-dir d'

describe('the flags of the agent', () => {
  afterEach(() => void vi.restoreAllMocks())
  const parse = (more: string): ReturnType<typeof parseFlags> => parseFlags(`${needed} ${more}`.trim().split(' '))
  /** What is printed about a wrong one. */
  function refused(more: string): string {
    const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
    expect(parse(more)).toBe(1)
    return written.mock.calls.map(([text]) => String(text)).join('')
  }

  it('leave CNI alone unless told of its folders', () => {
    const flags = parse('')
    expect(flags).toMatchObject({ node: 'n', exemptNamespaces: ['ambit-system', 'kube-system'], uninstall: false })
    expect(flags).not.toHaveProperty('cniConfDir')
  })

  it('name the folders of CNI together', () => {
    expect(parse('--cni-conf-dir /c --cni-bin-dir /b')).toMatchObject({ cniConfDir: '/c', cniBinDir: '/b' })
    expect(refused('--cni-conf-dir /c')).toContain('go together')
    expect(refused('--cni-bin-dir /b')).toContain('go together')
  })

  it('let nothing into the entry that the plugin could not read', () => {
    expect(parse('--exempt-namespaces mesh,kube-system')).toMatchObject({ exemptNamespaces: ['mesh', 'kube-system'] })
    for (const names of ['a,,b', 'A', '', 'a/b', 'x'.repeat(64)]) {
      expect(refused(`--exempt-namespaces=${names}`)).toContain('names of namespaces')
    }
    expect(parse('--cni-socket /run/x.sock')).toMatchObject({ cniSocket: '/run/x.sock' })
    expect(refused('--cni-socket run/x.sock')).toContain('absolute path')
    expect(refused(`--cni-socket /${'x'.repeat(107)}`)).toContain('absolute path')
  })
})
