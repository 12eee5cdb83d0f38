/* SPDX-License-Identifier: GPL-2.0 */
/* The verdicts on connections between pods of this node, one table for each destination, replaced
 * as a whole. Made by asking the mesh's own rules (agent/mesh/tabulate.ts). What no row answers is
 * never allowed. */
#pragma once

#include "pods.h"

#define IPPROTO_UDP 17

enum policy_verdict {
	/* Not for the kernel to say. */
	VERDICT_AGENT,
	VERDICT_ALLOW,
	VERDICT_DENY,
	/* In the head only: the answer depends on the port; it is in {0, port}, else in {0,
	   PORT_OTHER}. */
	VERDICT_BY_PORT,
	/* In the head only: it depends on the client; it is in {client, port}, else in {client,
	   PORT_OTHER}. */
	VERDICT_BY_CLIENT,
};

/* Port 0 of client 0 is the head of the table, and no port of a connection. */
#define PORT_HEAD 0
/* All ports without a row. Port 15008 is never the app's, so it can stand for them. */
#define PORT_OTHER HBONE_PORT

struct policy_key {
	/* Cookie of the client's namespace; 0: any. */
	__u64 client;
	__u16 port;
	/* IPPROTO_TCP, IPPROTO_UDP */
	__u8 protocol;
	__u8 padding[5];
};

struct policy_row {
	/* enum policy_verdict */
	__u8 verdict;
	__u8 padding[3];
};

/* Clang describes only by name what an inner map is made of: named here, so that the BTF has it
 * whole. */
const struct policy_key *export_policy_key __attribute__((unused));
const struct policy_row *export_policy_row __attribute__((unused));

struct policy_table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* Beyond it, the table stays empty and the agent judges. */
	__uint(max_entries, 65536);
	__type(key, struct policy_key);
	__type(value, struct policy_row);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	/* As many as pods. */
	__uint(max_entries, 4096);
	__type(key, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__array(values, struct policy_table);
} ambit_policies SEC(".maps");

static __always_inline __u8 policy_row(void *table, __u64 client, __u16 port, __u8 protocol)
{
	struct policy_key key = {.client = client, .port = port, .protocol = protocol};
	struct policy_row *row = bpf_map_lookup_elem(table, &key);

	return row ? row->verdict : VERDICT_AGENT;
}

/* The verdict on TCP from a pod of this node to port `port` of the pod `destination`. */
static __always_inline __u8 policy_verdict(__u64 destination, __u64 client, __u16 port)
{
	void *table = bpf_map_lookup_elem(&ambit_policies, &destination);
	__u64 asker = 0;
	__u8 verdict;

	if (!table)
		return VERDICT_AGENT;
	verdict = policy_row(table, 0, PORT_HEAD, IPPROTO_TCP);
	if (verdict == VERDICT_BY_CLIENT)
		asker = client;
	else if (verdict != VERDICT_BY_PORT)
		return verdict;
	verdict = policy_row(table, asker, port, IPPROTO_TCP);
	if (verdict == VERDICT_AGENT)
		verdict = policy_row(table, asker, PORT_OTHER, IPPROTO_TCP);
	return verdict;
}
