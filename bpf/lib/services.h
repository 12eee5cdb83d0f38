/* SPDX-License-Identifier: GPL-2.0 */
/* Services by address and port, and their endpoints. An update writes the slots of a new version,
 * then the entry that names it, then takes the old slots away: who reads in between finds a whole
 * list or a slot that is missing, and a miss goes to the agent. */
#pragma once

#include "address.h"

struct service_key {
	struct address address;
	__u16 port;
	__u8 padding[6];
};

enum service_kind {
	/* A waypoint, a shared address, nobody to answer: the agent knows. */
	SERVICE_AGENT,
	/* Any of the slots. */
	SERVICE_BALANCED,
};

struct service {
	__u32 version;
	/* Slots of this version, from index 0. */
	__u32 count;
	/* Session affinity ClientIP; 0: none. */
	__u32 affinity_seconds;
	/* Of the sync that wrote it. */
	__u32 generation;
	/* enum service_kind */
	__u8 kind;
	__u8 padding[7];
};

struct backend_key {
	struct service_key service;
	__u32 version;
	__u32 index;
};

struct backend {
	struct address address;
	__u16 port;
	__u8 padding[6];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* Address and port of each service, both families. */
	__uint(max_entries, 65536);
	__type(key, struct service_key);
	__type(value, struct service);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* Endpoints of all of them, twice while one is replaced. */
	__uint(max_entries, 524288);
	__type(key, struct backend_key);
	__type(value, struct backend);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_backends SEC(".maps");

struct affinity_key {
	struct service_key service;
	/* The client's namespace: one pod, one client, whatever its addresses. */
	__u64 client;
};

struct affinity {
	struct backend backend;
	/* bpf_ktime_get_ns of the last connection. */
	__u64 used_ns;
	/* Of the list it is known to be in. */
	__u32 version;
	__u32 padding;
};

struct {
	/* LRU: a forgotten choice is made anew. */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	/* Pairs of client and service on one node. */
	__uint(max_entries, 16384);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_affinity SEC(".maps");
