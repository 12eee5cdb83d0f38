import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cgroupOwner } from './cgroup-names.ts'

const uid = '2a3b4c5d-0001-4abc-8def-0123456789ab'
const systemdUid = uid.replaceAll('-', '_')
const hash = '0123456789abcdef0123456789abcdef'
const id = 'c0ffee00'.repeat(8)
const other = 'deadbeef'.repeat(8)

describe('the owner of a process by its cgroups', () => {
  it.each([
    ['cgroupfs driver', `0::/kubepods/burstable/pod${uid}/${id}`],
    ['cgroupfs driver, guaranteed', `0::/kubepods/pod${uid}/${id}`],
    ['the sandbox itself', `0::/kubepods/besteffort/pod${uid}`],
    [
      'systemd driver',
      `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${systemdUid}.slice/cri-containerd-${id}.scope`,
    ],
    ['systemd driver, guaranteed', `0::/kubepods.slice/kubepods-pod${systemdUid}.slice/crio-${id}.scope`],
    ['CRI-O with a child', `0::/kubepods.slice/kubepods-pod${systemdUid}.slice/crio-${id}.scope/container`],
    ['Docker', `0::/kubepods.slice/kubepods-pod${systemdUid}.slice/docker-${id}.scope`],
    [
      'kind',
      `0::/docker/${other}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${systemdUid}.slice/cri-containerd-${id}.scope`,
    ],
    [
      'containerd below a service',
      `0::/system.slice/containerd.service/kubepods-burstable-pod${systemdUid}.slice:cri-containerd:${id}`,
    ],
    ['another namespace of cgroups', `0::/../../kubepods-besteffort-pod${systemdUid}.slice/cri-containerd-${id}.scope`],
    [
      'hierarchies of version 1',
      `12:memory:/kubepods/burstable/pod${uid}/${id}\n5:devices:/kubepods/burstable/pod${uid}/${id}\n1:name=systemd:/\n0::/`,
    ],
    ['the watcher of CRI-O', `0::/kubepods.slice/kubepods-pod${systemdUid}.slice/crio-conmon-${id}.scope`],
  ])('is the pod: %s', (_, text) => {
    expect(cgroupOwner(text)).toEqual({ uid })
    expect(cgroupOwner(`${text}\n`)).toEqual({ uid })
  })

  it('is a static pod by its hash', () => {
    expect(cgroupOwner(`0::/kubepods/burstable/pod${hash}/${id}`)).toEqual({ uid: hash })
    expect(cgroupOwner(`0::/kubepods.slice/kubepods-burstable-pod${hash}.slice`)).toEqual({ uid: hash })
  })

  it.each([
    ['containerd without cgroups per pod', `0::/k8s.io/${id}\n4:memory:/k8s.io/${id}`],
    ['Docker', `0::/docker/${id}`],
    ['systemd', `0::/system.slice/docker-${id}.scope`],
  ])('is the container where there is no pod: %s', (_, text) => {
    expect(cgroupOwner(text)).toEqual({ container: id })
  })

  it.each([
    ['', 'nothing'],
    ['0::/', 'the root'],
    ['0::/system.slice/ssh.service', 'a service'],
    ['0::/user.slice/user-1000.slice/session-1.scope', 'a session'],
    ['0::/kubepods/burstable', 'a class of pods'],
    [`0::/kubepods/burstable/pod${uid}x/y`, 'no uid'],
    [`0::/xpod${uid}`, 'no pod'],
    [`0::/crio-conmon-${id}.scope`, 'a watcher'],
    [`0::/k8s.io/${id}0`, 'no id'],
    [`4:memory:/kubepods/pod${uid}/${id}\n0::/kubepods/pod${hash}/${id}`, 'two pods'],
    [`4:memory:/k8s.io/${id}\n0::/k8s.io/${other}`, 'two containers'],
  ])('is nobody in %j (%s)', (text) => {
    expect(cgroupOwner(text)).toBeUndefined()
  })

  it('is whoever is outermost: a container names what is below it', () => {
    expect(cgroupOwner(`0::/kubepods/pod${uid}/${id}/kubepods/pod${hash}/${other}`)).toEqual({ uid })
    expect(cgroupOwner(`0::/k8s.io/${id}/k8s.io/${other}`)).toEqual({ container: id })
  })

  it('is found in any path, and no text is too strange', () => {
    const hex = (length: number) =>
      fc.string({ unit: fc.constantFrom(...Array.from('0123456789abcdef')), minLength: length, maxLength: length })
    const anyUid = fc.tuple(hex(8), hex(4), hex(4), hex(4), hex(12)).map((parts) => parts.join('-'))
    const plain = fc.constantFrom('kubepods', 'burstable', 'kubepods.slice', '..', 'a:b', 'system.slice', '')
    fc.assert(
      fc.property(fc.array(plain), anyUid, fc.boolean(), fc.array(fc.string()), (before, one, systemd, after) => {
        const name = systemd ? `kubepods-pod${one.replaceAll('-', '_')}.slice` : `pod${one}`
        const below = after.map((text) => text.replaceAll('\n', ''))
        expect(cgroupOwner(`0::/${[...before, name, ...below].join('/')}`)).toEqual({ uid: one })
      }),
    )
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (text) => {
        expect(cgroupOwner(text)).toBeUndefined()
      }),
    )
  })
})
