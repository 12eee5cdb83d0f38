// Where an agent finds itself and the pods' cgroup from inside a container of each kind of node: the kernel's own cgroup namespaces
// and mounts, made as runtimes make them. Must not live here: what is done with the cgroup (outbound.test.ts and others).
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { cgroupId } from '../../native/bpf/index.ts'
import { cgroupRoot } from '../world/netns.ts'
import { uniqueName } from '../world/sandbox.ts'

interface Seen {
  readonly pods: string
  readonly podsId: string
  readonly id: string
  readonly kubelet: string
}

const redirect = new URL('../../agent/node/redirect/', import.meta.url).href
const look = `
import { cgroupId } from '${new URL('../../native/bpf/index.ts', import.meta.url).href}'
import { findPodsCgroup } from '${redirect}pods-cgroup.ts'
import { cgroupOf, ownCgroupId } from '${redirect}cgroup.ts'
const pods = findPodsCgroup()
const kubelet = cgroupOf(Number(process.env.KUBELET))
console.log(JSON.stringify({ pods, podsId: String(cgroupId(pods)), id: String(ownCgroupId()), kubelet: String(cgroupId(kubelet)) }))
`

describe('an agent in a container', () => {
  const made: string[] = []
  afterEach(() => {
    for (const folder of made.splice(0).reverse()) rmdirSync(folder)
  })

  /** A node's hierarchy, as a directory of the machine's: its root, and the cgroups below. */
  function tree(...below: readonly string[]): string {
    const top = join(cgroupRoot(), uniqueName())
    for (const path of ['', ...below]) {
      const names = path.split('/').filter((name) => name !== '')
      for (let at = 0; at <= names.length; at++) {
        const folder = join(top, ...names.slice(0, at))
        if (made.includes(folder)) continue
        mkdirSync(folder)
        made.push(folder)
      }
    }
    return top
  }

  /**
   * What an agent sees that runs in `own`. The node is a cgroup namespace with its hierarchy mounted; `container`: the agent is in a
   * further one, as on machines of version 2, with the node's mount at hand; a kubelet runs in `kubelet`.
   */
  function seen(top: string, own: string, kubelet: string, container: boolean): Seen {
    const inside = `${process.execPath} --disable-warning=ExperimentalWarning --input-type=module -`
    const node = `
      set -e
      mount -t cgroup2 none "$MOUNT"
      echo 0 > "$MOUNT/${kubelet}/cgroup.procs"
      sleep 20 & KUBELET=$!; export KUBELET
      trap "kill $KUBELET; wait" EXIT
      echo 0 > "$MOUNT/${own}/cgroup.procs"
      ${container ? `unshare --cgroup ${inside}` : inside}
    `
    const out = execFileSync(
      'sh',
      ['-ec', 'echo 0 > "$TOP/cgroup.procs"; exec unshare --mount --cgroup sh -c "$NODE"'],
      {
        env: { ...process.env, TOP: top, NODE: node, MOUNT: '/sys/fs/cgroup' },
        input: look,
        encoding: 'utf8',
        timeout: 15_000,
      },
    )
    return JSON.parse(out) as Seen
  }

  const id = 'c'.repeat(64)
  const nodes = [
    ['cgroupfs', 'kubepods', `kubepods/burstable/pod1/${id}`, 'system/kubelet'],
    [
      'systemd',
      'kubepods.slice',
      `kubepods.slice/kubepods-pod1.slice/cri-containerd-${id}.scope`,
      'system.slice/kubelet',
    ],
    ['no cgroups per pod', 'k8s.io', `k8s.io/${id}`, 'kubelet'],
  ] as const
  for (const [driver, pods, own, kubelet] of nodes) {
    for (const container of [false, true]) {
      it(`finds the pods, itself and the kubelet (${driver}, ${container ? 'own' : 'the node’s'} cgroup namespace)`, () => {
        const top = tree(own, kubelet, `${pods}/other`)
        expect(seen(top, own, kubelet, container)).toEqual({
          pods: `/sys/fs/cgroup/${pods}`,
          podsId: String(cgroupId(join(top, pods))),
          id: String(cgroupId(join(top, own))),
          kubelet: String(cgroupId(join(top, kubelet))),
        })
      })
    }
  }
})
