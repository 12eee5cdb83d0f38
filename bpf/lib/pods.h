/* SPDX-License-Identifier: GPL-2.0 */
/* Which network namespaces are enrolled, under which addresses, and which programs are agents.
 * Written by the agent only; the key is the namespace's cookie, which nothing in a pod can choose
 * or change. */
#pragma once

#include "address.h"

/* Port of the mesh's tunnels (HBONE), fixed by Istio's protocol. */
#define HBONE_PORT 15008

enum pod_state {
	/* Enrolment or unenrolment is under way: what is not yet captured passes. */
	POD_PASSING = 1,
	POD_CAPTURED = 2,
};

enum pod_flag {
	/* The pod's workload is known and the tables hold for it: the kernel may decide what
	   becomes of what it dials. */
	POD_DIRECT = 1,
};

enum listener_kind {
	LISTENER_OUTBOUND,
	LISTENER_HBONE,
	LISTENER_PLAINTEXT,
	LISTENERS,
};

struct pod {
	/* Local ports of the listeners, by enum listener_kind: dialling one is refused. */
	__u16 listener_ports[LISTENERS];
	/* enum pod_state */
	__u8 state;
	/* Plaintext from outside is refused here instead of judged by the agent. */
	__u8 refuse_plaintext;
	/* enum pod_flag */
	__u8 flags;
	__u8 padding[7];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	/* Pods of one node; Kubernetes supports 110, some run 500. */
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct pod);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_pods SEC(".maps");

struct pod_address {
	__u64 cookie;
	struct address address;
};

/* The pods' own addresses: a pod that talks to itself is left alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	/* Four per pod. */
	__uint(max_entries, 16384);
	__type(key, struct pod_address);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_addresses SEC(".maps");

/* Cgroup ids of agents: two while one takes over from the other. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_agents SEC(".maps");

static __always_inline int is_own_address(__u64 cookie, const struct address *address)
{
	struct pod_address key = {.cookie = cookie, .address = *address};

	return bpf_map_lookup_elem(&ambit_addresses, &key) != 0;
}

/* True if the calling task belongs to an agent. Unlike a mark or a user id, a pod cannot forge its
 * cgroup. */
static __always_inline int is_agent(void)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	return bpf_map_lookup_elem(&ambit_agents, &cgroup) != 0;
}
