// Reading /proc: which mount shows the hierarchy, and where in it a process is. What a container really sees: test/kernel.
import { describe, expect, it } from 'vitest'
import { cgroupMounts, cgroupOf, placeOf } from './cgroup.ts'
import { podsCgroupAbove } from './pods-cgroup.ts'

describe('the cgroup of a process', () => {
  it.each([
    ['0::/system.slice/kubelet.service\n', 0, '/system.slice/kubelet.service'],
    // As a container sees it that has the node's hierarchy mounted, three levels above its own.
    ['0::/../../../system.slice/kubelet.service\n', 3, '/system.slice/kubelet.service'],
    ['0::/../../..\n', 3, '/'],
    ['0::/\n', 0, '/'],
    ['0::/\n', 3, 'hidden'],
    ['0::/../other\n', 3, 'hidden'],
    ['0::/../other\n', 0, 'outside'],
    ['0::/..a\n', 0, '/..a'],
    ['4:memory:/x\n0::/y:z\n', 0, '/y:z'],
    ['4:memory:/x\n', 0, 'outside'],
  ])('is found from %j under a mount %i above: %s', (text, above, expected) => {
    expect(placeOf(text, above)).toBe(expected)
  })

  it('is not told of one that is gone', () => {
    expect(() => cgroupOf(4_194_305)).toThrow()
  })
})

describe('mounts of the hierarchy', () => {
  const lines = (...mounts: readonly string[]): string => mounts.map((one, at) => `${at + 20} 1 0:5 ${one}\n`).join('')

  it('are those that begin at the reader’s root or above it', () => {
    const text = lines(
      '/ /sys/fs/cgroup ro - tmpfs tmpfs ro',
      '/ /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw',
      '/../../.. /host\\040cgroup rw - cgroup2 none rw',
      '/a/b /elsewhere rw - cgroup2 none rw',
      '/../sibling /sibling rw - cgroup2 none rw',
      '/ /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu',
    )
    expect(cgroupMounts(text)).toEqual([
      { path: '/sys/fs/cgroup/unified', above: 0 },
      { path: '/host cgroup', above: 3 },
    ])
  })

  it('are hidden by what is mounted over them', () => {
    const own = '/ /sys/fs/cgroup rw - cgroup2 none rw'
    const node = '/../../.. /sys/fs/cgroup rw - cgroup2 none rw'
    expect(cgroupMounts(lines(own, node))).toEqual([{ path: '/sys/fs/cgroup', above: 3 }])
    expect(cgroupMounts(lines(node, own))).toEqual([{ path: '/sys/fs/cgroup', above: 0 }])
    expect(cgroupMounts(lines(own, '/ /sys/fs/cgroup rw - tmpfs none rw'))).toEqual([])
  })
})

describe('the parent of the pods’ cgroups', () => {
  const id = 'a'.repeat(64)
  it.each([
    [`kubepods/besteffort/pod1/${id}`, '/m/kubepods'],
    [
      `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-${id}.scope`,
      '/m/kubepods.slice',
    ],
    [
      `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/${id}`,
      '/m/kubelet.slice/kubelet-kubepods.slice',
    ],
    [`k8s.io/${id}`, '/m/k8s.io'],
    [`system.slice/cri-containerd-${id}.scope`, '/m/system.slice'],
    [id, undefined],
    ['system.slice/agent.service', undefined],
    ['', undefined],
  ])('is seen from /m/%s', (own, expected) => {
    expect(podsCgroupAbove('/m', own === '' ? '/m' : `/m/${own}`)).toBe(expected)
  })
})
