import { describe, expect, it } from 'vitest'
import { cgroupOf, fromRoot } from './cgroup.ts'

describe('the cgroup of a process', () => {
  it.each([
    ['/system.slice/kubelet.service', '/system.slice/kubelet.service'],
    ['/../../../system.slice/kubelet.service', '/system.slice/kubelet.service'],
    ['/..', '/'],
    ['/', '/'],
    ['/a/..service', '/a/..service'],
  ])('is found from its path as a container sees it: %s is %s', (path, expected) => {
    expect(fromRoot(path)).toBe(expected)
  })

  it('is not told of one that is gone', () => {
    expect(() => cgroupOf(4_194_305)).toThrow()
  })
})
