/* SPDX-License-Identifier: GPL-2.0 */
/* One event for each connection that the kernel's half handled alone and that has ended, failed or
 * been refused, told by the side that dialled. The agent writes it to its access log. Each load of
 * the programs has a ring of its own: the agent that loaded them is its only reader. */
#pragma once

#include "counters.h"
#include "tcp.h"

/* Events a second, set before load; 0: none. What is beyond is counted. */
const volatile __u32 flow_log_per_second = 0;

struct flow_event {
	struct address source;
	/* Where it went, or was to go. */
	struct address destination;
	/* What was dialled. */
	struct address dialled;
	/* Of the namespace that dialled. */
	__u64 cookie;
	__u64 duration_ns;
	__u64 sent;
	__u64 received;
	__u32 retransmits;
	__u32 rtt_us;
	/* errno of its end, 0 for a clean one */
	__u32 error;
	__u16 source_port;
	__u16 destination_port;
	__u16 dialled_port;
	/* enum edge_security */
	__u8 security;
	/* It never opened. */
	__u8 failed;
	/* enum refusal */
	__u8 refusal;
	__u8 padding[3];
};

/* Named here, so that the BTF has it. */
const struct flow_event *export_flow_event __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	/* About 4 000 events that the agent has not yet taken. */
	__uint(max_entries, 512 * 1024);
} ambit_flow_log SEC(".maps");

struct flow_budget {
	/* bpf_ktime_get_ns, in seconds */
	__u64 second;
	__u64 used;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flow_budget);
} ambit_flow_budget SEC(".maps");

/* Room for one event, NULL if there is none; the rest of this second's share is gone then. */
static __always_inline struct flow_event *begin_event(__u64 now)
{
	__u64 second = now / 1000000000;
	struct flow_event *event = 0;
	struct flow_budget *budget;
	__u32 zero = 0;

	if (flow_log_per_second == 0)
		return 0;
	budget = bpf_map_lookup_elem(&ambit_flow_budget, &zero);
	if (!budget)
		return 0;
	if (budget->second != second) {
		/* Two processors may both begin a second: it gets a few more then. */
		budget->second = second;
		budget->used = 0;
	}
	/* Looked at first: when it is gone, nobody writes to it. */
	if (budget->used < flow_log_per_second &&
	    __sync_fetch_and_add(&budget->used, 1) < flow_log_per_second)
		event = bpf_ringbuf_reserve(&ambit_flow_log, sizeof(*event), 0);
	if (!event)
		count(COUNT_FLOWS_NOT_LOGGED);
	return event;
}
