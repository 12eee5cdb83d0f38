// The cgroup that all pods of the node are below, found: it is called kubepods under the kubelet's drivers; where the kubelet keeps
// no cgroups per pod, the containers of all pods have one parent. Must not live here: where processes stand (cgroup.ts).
import { dirname, join, relative } from 'node:path'
import { AmbitError } from '../../base/errors.ts'
import { cgroupMount, foldersIn, isWithin, ownCgroup } from './cgroup.ts'

/** cgroupfs: `kubepods`; systemd: `kubepods.slice`; below a --cgroup-root of the kubelet: `kubelet.slice/kubelet-kubepods.slice`. */
const PODS = /^(?:[^/]*-)?kubepods(?:\.slice)?$/
/** How deep it can be: a node that is a container itself has a few levels above. */
const MAX_DEPTH = 4
/** `ID`, `cri-containerd-ID.scope`. */
const CONTAINER = /(?:^|-)[0-9a-f]{64}(?:\.scope)?$/

/**
 * The parent of the pods' cgroups, seen by an agent that runs in a pod, or beside one on the node. Throws REDIRECT_NO_CGROUP where it
 * cannot be told, REDIRECT_NO_CGROUP2.
 */
export function findPodsCgroup(): string {
  const { path } = cgroupMount()
  const own = ownCgroup()
  const found = podsCgroupAbove(path, own) ?? nearestBelow(path)
  if (found !== undefined) return found
  throw new AmbitError('REDIRECT_NO_CGROUP', `No cgroup called kubepods is to be found under ${path}.`, {
    hint: 'Name the parent of the pods’ cgroups with --cgroup.',
  })
}

/** Of an agent in a pod, by the names above it. Pure. */
export function podsCgroupAbove(mount: string, own: string): string | undefined {
  const names = relative(mount, own).split('/')
  const at = names.findIndex((name) => PODS.test(name))
  if (at >= 0) return join(mount, ...names.slice(0, at + 1))
  const parent = dirname(own)
  return CONTAINER.test(names.at(-1) ?? '') && parent !== mount && names[0] !== '..' ? parent : undefined
}

/** The first of that name, level by level; of a level the one that sorts first. */
function nearestBelow(mount: string): string | undefined {
  let level = [mount]
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    level = level.flatMap((folder) =>
      foldersIn(folder)
        .sort()
        .map((name) => join(folder, name)),
    )
    const found = level.find((folder) => PODS.test(folder.slice(folder.lastIndexOf('/') + 1)))
    if (found !== undefined && isWithin(mount, found)) return found
  }
  return undefined
}
