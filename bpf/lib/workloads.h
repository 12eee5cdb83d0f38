/* SPDX-License-Identifier: GPL-2.0 */
/* Every address the mesh knows and what a connection to it needs. Service addresses are in here
 * too, as WORKLOAD_AGENT, so that a port the service does not have is the agent's to refuse. */
#pragma once

#include "address.h"

enum workload_class {
	/* A tunnel, a waypoint, a refusal: the agent knows. */
	WORKLOAD_AGENT,
	/* A captured pod of this node that may be dialled directly. */
	WORKLOAD_DIRECT,
	/* Not in the mesh. */
	WORKLOAD_PLAIN,
};

struct workload {
	/* WORKLOAD_DIRECT: the pod's namespace. */
	__u64 cookie;
	/* Of the sync that wrote it; what an older one left is swept. */
	__u32 generation;
	/* enum workload_class */
	__u8 class;
	__u8 padding[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* Addresses of the whole mesh, both families. */
	__uint(max_entries, 262144);
	__type(key, struct address);
	__type(value, struct workload);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_workloads SEC(".maps");

enum settings_flag {
	/* The tables hold what the agent knows of the mesh. Without it everything goes to the
	   agent. */
	SETTINGS_SYNCED = 1,
	/* outboundTrafficPolicy ALLOW_ANY: what is in no table passes. */
	SETTINGS_PASS_UNKNOWN = 2,
};

struct settings {
	/* enum settings_flag */
	__u32 flags;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_settings SEC(".maps");

static __always_inline __u32 settings_flags(void)
{
	__u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem(&ambit_settings, &zero);

	return settings ? settings->flags : 0;
}
