// Names for the kernel's numbers (linux/bpf.h): map types, program types, attach types, helpers. Must not live here: code.

/** enum bpf_map_type → the name used here. Order is the enum's. */
// prettier-ignore
export const mapTypes = [
  'unspec', 'hash', 'array', 'prog_array', 'perf_event_array', 'percpu_hash', 'percpu_array', 'stack_trace',
  'cgroup_array', 'lru_hash', 'lru_percpu_hash', 'lpm_trie', 'array_of_maps', 'hash_of_maps', 'devmap', 'sockmap',
  'cpumap', 'xskmap', 'sockhash', 'cgroup_storage', 'reuseport_sockarray', 'percpu_cgroup_storage', 'queue', 'stack',
  'sk_storage', 'devmap_hash', 'struct_ops', 'ringbuf', 'inode_storage', 'task_storage', 'bloom_filter',
  'user_ringbuf', 'cgrp_storage', 'arena',
] as const

export type MapType = (typeof mapTypes)[number]

/** enum bpf_prog_type → the name used here. Order is the enum's. */
// prettier-ignore
export const programTypes = [
  'unspec', 'socket_filter', 'kprobe', 'sched_cls', 'sched_act', 'tracepoint', 'xdp', 'perf_event', 'cgroup_skb',
  'cgroup_sock', 'lwt_in', 'lwt_out', 'lwt_xmit', 'sock_ops', 'sk_skb', 'cgroup_device', 'sk_msg', 'raw_tracepoint',
  'cgroup_sock_addr', 'lwt_seg6local', 'lirc_mode2', 'sk_reuseport', 'flow_dissector', 'cgroup_sysctl',
  'raw_tracepoint_writable', 'cgroup_sockopt', 'tracing', 'struct_ops', 'ext', 'lsm', 'sk_lookup', 'syscall',
  'netfilter',
] as const

export type ProgramType = (typeof programTypes)[number]

/** Attach types this library names; numbers of enum bpf_attach_type. */
export const attachTypes = {
  cgroup_inet_ingress: 0,
  cgroup_inet_egress: 1,
  cgroup_sock_ops: 3,
  cgroup_inet4_connect: 10,
  cgroup_inet6_connect: 11,
  cgroup_getsockopt: 21,
  cgroup_inet4_getpeername: 29,
  cgroup_inet6_getpeername: 30,
  cgroup_inet4_getsockname: 31,
  cgroup_inet6_getsockname: 32,
  trace_iter: 28,
  sk_lookup: 36,
  tcx_ingress: 46,
  tcx_egress: 47,
} as const

/** Helpers a mesh needs, by their number in enum bpf_func_id. */
export const helpers = {
  map_lookup_elem: 1,
  get_socket_cookie: 46,
  get_current_cgroup_id: 80,
  sk_release: 86,
  sk_storage_get: 107,
  sk_storage_delete: 108,
  get_netns_cookie: 122,
  get_current_ancestor_cgroup_id: 123,
  sk_assign: 124,
  ringbuf_output: 130,
  skc_to_tcp_sock: 137,
  set_retval: 187,
} as const

export type HelperName = keyof typeof helpers

/** Flags of BPF_MAP_UPDATE_ELEM. */
export const updateFlags = { any: 0, create: 1, replace: 2 } as const

/** Flags of BPF_MAP_CREATE. */
export const BPF_F_NO_PREALLOC = 1
