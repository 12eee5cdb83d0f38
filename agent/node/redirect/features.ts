// What capture needs of the kernel, found by trying; a lack is one error that names the feature, what it is for and the
// way out. Must not live here: how features are tried (native/bpf).
import { hasFeature, isBpffs, type FeatureName } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'

interface Need {
  readonly feature: FeatureName
  readonly purpose: string
  /** First kernel that has it and the build option it depends on. */
  readonly from: string
}

/** All are in Linux 5.15, the smallest kernel supported. */
export const needs: readonly Need[] = [
  {
    feature: 'program:cgroup_sock_addr',
    purpose: 'to capture what pods dial',
    from: 'Linux 4.17 with CONFIG_CGROUP_BPF',
  },
  {
    feature: 'program:sock_ops',
    purpose: 'to carry the original destination to the agent',
    from: 'Linux 4.13 with CONFIG_CGROUP_BPF',
  },
  { feature: 'program:sk_lookup', purpose: 'to capture what reaches pods', from: 'Linux 5.9 with CONFIG_INET' },
  { feature: 'map:sk_storage', purpose: 'to note the original destination on sockets', from: 'Linux 5.2' },
  { feature: 'map:sockhash', purpose: 'to hand connections to the listeners', from: 'Linux 4.18 with CONFIG_NET' },
  { feature: 'map:lru_hash', purpose: 'to file handshakes', from: 'Linux 4.10' },
  {
    feature: 'helper:cgroup_sock_addr/get_netns_cookie',
    purpose: 'to know which pod dials',
    from: 'Linux 5.7',
  },
  { feature: 'helper:sock_ops/get_netns_cookie', purpose: 'to keep pods apart', from: 'Linux 5.15' },
  { feature: 'helper:cgroup_sock_addr/sk_storage_get', purpose: 'to note the destination', from: 'Linux 5.8' },
  { feature: 'helper:sock_ops/sk_storage_get', purpose: 'to carry the destination', from: 'Linux 5.2' },
  { feature: 'helper:sk_lookup/sk_assign', purpose: 'to hand connections to the listeners', from: 'Linux 5.9' },
  {
    feature: 'btf',
    purpose: 'to find the kernel’s counts of a connection',
    from: 'Linux 5.2 with CONFIG_DEBUG_INFO_BTF',
  },
  { feature: 'helper:sock_ops/skc_to_tcp_sock', purpose: 'to read them', from: 'Linux 5.9' },
  { feature: 'map:ringbuf', purpose: 'for the flow log', from: 'Linux 5.8' },
  { feature: 'link:cgroup', purpose: 'to stay attached while the agent is away', from: 'Linux 5.7' },
  { feature: 'netns_cookie', purpose: 'to tell the kernel which pods are enrolled', from: 'Linux 5.14' },
]

/** What capture can do without, less well; whether it is there is in the features all the same. */
export const extras: readonly Need[] = [
  {
    feature: 'link:tcx',
    purpose:
      'to guard the exits of pods: without it a program with CAP_NET_RAW or outside the node’s cgroup gets round the mesh',
    from: 'Linux 6.6 with CONFIG_NET_XGRESS',
  },
  {
    feature: 'helper:cgroup_sockopt/get_netns_cookie',
    purpose: 'to refuse packet and XDP sockets that send past the guard',
    from: 'Linux 5.14 with CONFIG_CGROUP_BPF',
  },
  {
    feature: 'link:cgroup_before',
    purpose: 'to come before the programs of others on the same cgroup',
    from: 'Linux 6.17',
  },
  {
    feature: 'iterator:task_file',
    purpose: 'to count connections that are still open',
    from: 'Linux 5.11 with CONFIG_DEBUG_INFO_BTF',
  },
  {
    feature: 'iterator:bpf_sk_storage_map',
    purpose: 'to count them by one walk over their notes, not over the files of all processes',
    from: 'Linux 5.15 with CONFIG_DEBUG_INFO_BTF',
  },
  {
    feature: 'kfunc:bpf_sock_destroy',
    purpose: 'to end open connections that policy refuses by now',
    from: 'Linux 6.5 with CONFIG_DEBUG_INFO_BTF',
  },
]

/** Feature name → supported. What `override` says is false counts as absent; it cannot make anything present. */
export function probeNeeds(override: Readonly<Record<string, boolean>> = {}): Record<string, boolean> {
  return Object.fromEntries(
    [...needs, ...extras].map(({ feature }) => [feature, override[feature] !== false && hasFeature(feature)]),
  )
}

/** Whether an existing folder is on the file system that programs can be pinned to. */
export function isOnBpffs(folder: string): boolean {
  return isBpffs(folder)
}

/** Throws REDIRECT_NOT_PERMITTED or REDIRECT_FEATURE_MISSING, naming all that is missing. */
export function requireNeeds(features: Readonly<Record<string, boolean>>): void {
  const missing = needs.filter(({ feature }) => features[feature] !== true)
  if (missing.length === 0) return
  // A process without rights sees none of the bpf features, on any kernel.
  if (needs.every(({ feature }) => feature === 'netns_cookie' || features[feature] !== true)) {
    throw new AmbitError('REDIRECT_NOT_PERMITTED', 'The kernel lets this process load no eBPF programs at all.', {
      hint: 'Run the agent as root or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN, and let seccomp allow bpf(2); the kernel needs CONFIG_BPF_SYSCALL.',
    })
  }
  const list = missing.map(({ feature, purpose, from }) => `${feature} (${purpose}; ${from})`).join(', ')
  throw new AmbitError('REDIRECT_FEATURE_MISSING', `The kernel lacks what capture needs: ${list}.`, {
    hint: 'Use Linux 5.15 or newer with the named options. No pod is captured on this node until then.',
  })
}
