/* SPDX-License-Identifier: GPL-2.0 */
/* The agent's listening sockets. The kernel takes a socket out when it is closed, so a dead agent's
 * pods find none. */
#pragma once

#include "pods.h"

struct listener_key {
	__u64 cookie;
	/* enum listener_kind */
	__u32 kind;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	/* LISTENERS for each of the pods. */
	__uint(max_entries, 12288);
	__type(key, struct listener_key);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_listeners SEC(".maps");
