// What the running kernel can do, found by trying and never by its version; a probe can be overridden to "no" so that
// tests can pretend. Must not live here: what follows from a missing feature.
import { readFileSync } from 'node:fs'
import { native, type BatchOperation } from './addon.ts'
import { closeFd, netnsCookie } from './sockets.ts'
import {
  BPF_F_NO_PREALLOC,
  attachTypes,
  helpers,
  mapTypes,
  programTypes,
  type HelperName,
  type MapType,
  type ProgramType,
} from './kinds.ts'

/**
 * `map:<type>`, `program:<type>` and `helper:<program type>/<helper>` ask for one thing of the kernel;
 * `link:cgroup` and `link:cgroup_before` / `link:cgroup_preorder` for links to cgroups and a place before the others;
 * `link:tcx` for links to network interfaces; `batch:<map type>/<operation>` for many entries by one call;
 * `kfunc:<name>` for a function of the kernel's own that programs may call;
 * `iterator:<what>` for programs that walk tasks, sockets (`tcp`), map entries (`bpf_map_elem`) …;
 * `netns_cookie` for SO_NETNS_COOKIE; `btf` for the kernel's own type information.
 */
export type FeatureName =
  | `map:${MapType}`
  | `program:${ProgramType}`
  | `helper:${ProgramType}/${HelperName}`
  | 'link:cgroup'
  | 'link:cgroup_before'
  | 'link:cgroup_preorder'
  | 'link:tcx'
  | `batch:${MapType}/${BatchOperation}`
  | `iterator:${string}`
  | `kfunc:${string}`
  | 'netns_cookie'
  | 'btf'

// linux/bpf.h of newer kernels than the build machine's headers.
export const BPF_F_BEFORE = 1 << 3
export const BPF_F_PREORDER = 1 << 6

const EBADF = 9
const ENODEV = 19
const NO_SUCH_INTERFACE = 0x7fff_ffff
const EOPNOTSUPP = 95

const cache = new Map<FeatureName, boolean>()

/**
 * Whether the kernel has a feature. Tried once per process and remembered (a fraction of a millisecond each). The variable
 * AMBIT_BPF_FEATURES, a list as in `-map:ringbuf,-link:cgroup_before`, makes the named ones absent; `-map:*` a family.
 * Without the right to load programs every probe says no.
 */
export function hasFeature(name: FeatureName): boolean {
  if (denied(name)) return false
  let known = cache.get(name)
  if (known === undefined) {
    known = probe(name)
    cache.set(name, known)
  }
  return known
}

/** Several at once, by name. */
export function probeFeatures<N extends FeatureName>(names: readonly N[]): Record<N, boolean> {
  return Object.fromEntries(names.map((name) => [name, hasFeature(name)])) as Record<N, boolean>
}

function denied(name: FeatureName): boolean {
  const list = process.env['AMBIT_BPF_FEATURES']
  if (list === undefined || list === '') return false
  return list.split(',').some((entry) => {
    const item = entry.trim()
    if (!item.startsWith('-')) return false
    return item.endsWith('*') ? name.startsWith(item.slice(1, -1)) : name === item.slice(1)
  })
}

function probe(name: FeatureName): boolean {
  if (name === 'btf') return succeeds(native().open('/sys/kernel/btf/vmlinux', 0))
  if (name === 'netns_cookie') {
    try {
      return netnsCookie('/proc/self/ns/net') > 0n
    } catch {
      return false
    }
  }
  const [family = '', rest = ''] = name.split(':')
  if (family === 'map') return native().probeMap(mapTypes.indexOf(rest as MapType)) === 1
  if (family === 'program') return probeProgram(rest as ProgramType)
  if (family === 'helper') {
    const [type, helper] = rest.split('/') as [ProgramType, HelperName]
    return native().probeHelper(programTypes.indexOf(type), helpers[helper]) === 1
  }
  if (family === 'batch') return probeBatch(...(rest.split('/') as [MapType, BatchOperation]))
  if (family === 'iterator') return native().probeIterator(rest) === 1
  if (family === 'kfunc') return isInBtf(rest)
  if (rest === 'tcx') return probeTcx()
  return probeCgroupLink(rest === 'cgroup_before' ? BPF_F_BEFORE : rest === 'cgroup_preorder' ? BPF_F_PREORDER : 0)
}

function probeProgram(type: ProgramType): boolean {
  const answer = native().probeProgram(programTypes.indexOf(type))
  // libbpf cannot try types it does not know; those count as absent.
  return answer !== -EOPNOTSUPP && answer === 1
}

/** The kernel looks at the flags before the target: EBADF for a target that is no cgroup means the flags are known. */
function probeCgroupLink(flags: number): boolean {
  const program = native().loadBare(programTypes.indexOf('cgroup_sock_addr'), attachTypes.cgroup_inet4_connect)
  if (program < 0) return false
  const link = native().linkCreate(program, program, attachTypes.cgroup_inet4_connect, flags)
  closeFd(program)
  return link === -EBADF
}

/** ENODEV for an interface that is not there means that the attach type is known. */
function probeTcx(): boolean {
  const program = native().loadBare(programTypes.indexOf('sched_cls'), 0)
  if (program < 0) return false
  const link = native().linkCreate(program, NO_SUCH_INTERFACE, attachTypes.tcx_ingress, 0)
  closeFd(program)
  return link === -ENODEV
}

/** A batch of no entries on a small map: 0 where the map type has the operation. */
function probeBatch(type: MapType, operation: BatchOperation): boolean {
  const create = (of: MapType, inner: number): number => {
    const [key, flags] = of === 'lpm_trie' ? [8, BPF_F_NO_PREALLOC] : [4, 0]
    const value = of.endsWith('_of_maps') ? 4 : 8
    return native().mapCreate(mapTypes.indexOf(of), 'probe', key, value, 1, flags, inner)
  }
  const inner = type.endsWith('_of_maps') ? create('array', 0) : 0
  if (inner < 0) return false
  const map = create(type, inner)
  if (inner > 0) closeFd(inner)
  if (map < 0) return false
  const [token, keys, values] = [new Uint8Array(8), new Uint8Array(8), new Uint8Array(8)]
  const { result } = native().mapBatch(operation, map, null, token, keys, values, 0, 0)
  closeFd(map)
  return result === 0
}

/** The loader finds functions by their name in the kernel's type information; so does this. */
function isInBtf(name: string): boolean {
  try {
    return readFileSync('/sys/kernel/btf/vmlinux').includes(`\0${name}\0`)
  } catch {
    return false
  }
}

function succeeds(fd: number): boolean {
  if (fd >= 0) closeFd(fd)
  return fd >= 0
}
