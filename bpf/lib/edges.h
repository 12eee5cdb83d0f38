/* SPDX-License-Identifier: GPL-2.0 */
/* What was counted on each edge: one update when a connection ends, none while it runs. What runs
 * now is read from the sockets themselves (live.bpf.c), so that the path of the bytes costs
 * nothing. */
#pragma once

#include "counters.h"
#include "tcp.h"
#include "workloads.h"

/* Totals of connections that have ended. Added to atomically and not kept per processor: an update
 * is once a connection, and a node with a hundred processors would hold and copy a hundred of
 * each. */
struct edge {
	__u64 closed;
	__u64 failed;
	/* By enum refusal. */
	__u64 refused[REFUSALS];
	__u64 sent;
	__u64 received;
	__u64 retransmits;
	__u64 rtt_sum_us;
	__u64 rtt[RTT_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* Beyond it everything is counted on the edge whose key is all zero, which the agent makes
	 * first. The agent takes out what is idle. */
	__uint(max_entries, 16384);
	__type(key, struct edge_key);
	__type(value, struct edge);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_edges SEC(".maps");

static const struct edge no_edge = {};

/* The edge of a key, made if it is new. `key` becomes that of the edge for all others when there is
 * no room. */
static __always_inline struct edge *edge_at(struct edge_key *key)
{
	struct edge *edge = bpf_map_lookup_elem(&ambit_edges, key);

	if (edge)
		return edge;
	bpf_map_update_elem(&ambit_edges, key, &no_edge, BPF_NOEXIST);
	edge = bpf_map_lookup_elem(&ambit_edges, key);
	if (edge)
		return edge;
	count(COUNT_EDGES_FULL);
	__builtin_memset(key, 0, sizeof(*key));
	return bpf_map_lookup_elem(&ambit_edges, key);
}

static __always_inline void add(__u64 *total, __u64 amount)
{
	if (amount)
		__sync_fetch_and_add(total, amount);
}

static __always_inline void add_rtt(struct edge *edge, __u32 microseconds)
{
	__u32 bucket = rtt_bucket(microseconds);

	if (microseconds == 0)
		return;
	/* Known to the compiler, not to the verifier. */
	if (bucket < RTT_BUCKETS)
		add(&edge->rtt[bucket], 1);
	add(&edge->rtt_sum_us, microseconds);
}

/* True if the mesh knows the address, so that it may stand in a key. */
static __always_inline int is_known(const struct address *address)
{
	return bpf_map_lookup_elem(&ambit_workloads, address) != 0;
}

/* Counts a connection that was refused before it had a socket at this end. */
static __always_inline void account_refused(struct edge_key *key, enum refusal refusal)
{
	struct edge *edge = edge_at(key);

	if (edge)
		add(&edge->refused[refusal], 1);
}
