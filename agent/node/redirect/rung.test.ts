import { describe, expect, it } from 'vitest'
import { rungOf, rungs } from './rung.ts'

describe('the rung of a kernel', () => {
  const all = {
    'link:cgroup_before': true,
    'link:tcx': true,
    'kfunc:bpf_sock_destroy': true,
    'iterator:task_file': true,
  }
  it('is full where nothing is missing', () => {
    expect(rungOf(all)).toEqual({ name: 'full', lacks: [] })
  })

  it('has the name of the most that is missing, and says all that is', () => {
    expect(rungOf({ ...all, 'link:cgroup_before': false }).name).toBe('no_explicit_order')
    const lower = rungOf({ ...all, 'link:cgroup_before': false, 'link:tcx': false, 'kfunc:bpf_sock_destroy': false })
    expect(lower.name).toBe('no_sock_destroy')
    expect(lower.lacks.map(({ feature }) => feature)).toEqual([
      'link:cgroup_before',
      'link:tcx',
      'kfunc:bpf_sock_destroy',
    ])
  })

  it('is the lowest where nothing is known', () => {
    expect(rungOf({}).name).toBe(rungs.at(-1))
  })
})
