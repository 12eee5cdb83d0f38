// SPDX-License-Identifier: GPL-2.0
/* What the guard reads of a packet and decides about it, and what becomes of datagrams, as programs
 * of their own for BPF_PROG_TEST_RUN. Tests: test/kernel/decide-guard.test.ts. */
#include "../lib/decide_datagram.h"
#include "../lib/decide_guard.h"

struct guard_case {
	struct guard_facts facts;
	enum guard_verdict verdict;
	__u32 padding;
};

SEC("syscall")
int test_guard(struct guard_case *input)
{
	struct guard_facts facts = input->facts;

	input->verdict = decide_guard(&facts);
	return 0;
}

struct datagram_case {
	struct datagram_facts facts;
	__u8 refused;
	__u8 group_refused;
	__u8 padding[6];
};

SEC("syscall")
int test_datagram(struct datagram_case *input)
{
	struct datagram_facts facts = input->facts;

	input->refused = refuses_datagram(&facts);
	input->group_refused = refuses_group_datagram(&facts);
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct packet);
} test_packets SEC(".maps");

static __always_inline void keep(const struct packet *packet)
{
	__u32 zero = 0;

	bpf_map_update_elem(&test_packets, &zero, packet, BPF_ANY);
}

/* A frame; what was read of it is in test_packets. */
SEC("tc")
int test_frame(struct __sk_buff *ctx)
{
	struct packet packet = {};

	read_frame(ctx, IPPROTO_TCP, &packet);
	keep(&packet);
	return 0;
}

/* The same of an interface without Ethernet headers. */
SEC("tc")
int test_bare(struct __sk_buff *ctx)
{
	struct packet packet = {};

	read_bare(ctx, IPPROTO_TCP, &packet);
	keep(&packet);
	return 0;
}

/* As UDP. */
SEC("tc")
int test_datagram_frame(struct __sk_buff *ctx)
{
	struct packet packet = {};

	read_frame(ctx, IPPROTO_UDP, &packet);
	keep(&packet);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
