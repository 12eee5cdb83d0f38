// SPDX-License-Identifier: GPL-2.0
/* The decisions as programs of their own, for BPF_PROG_TEST_RUN: facts in, verdict out in the same
 * struct. Tests: test/kernel/decide.kernel.test.ts. */
#include "../lib/decide_connect.h"
#include "../lib/decide_lookup.h"
#include "../lib/decide_peer.h"
#include "../lib/decide_route.h"

struct connect_case {
	struct connect_facts facts;
	enum connect_verdict verdict;
	__u32 padding;
};

SEC("syscall")
int test_connect(struct connect_case *input)
{
	struct connect_facts facts = input->facts;

	input->verdict = decide_connect(&facts);
	return 0;
}

struct lookup_case {
	struct lookup_facts facts;
	enum lookup_verdict verdict;
	__u32 padding;
};

SEC("syscall")
int test_lookup(struct lookup_case *input)
{
	struct lookup_facts facts = input->facts;

	input->verdict = decide_lookup(&facts);
	return 0;
}

struct route_case {
	struct route_facts facts;
	enum route route;
	enum note_kind kind;
};

SEC("syscall")
int test_route(struct route_case *input)
{
	struct route_facts facts = input->facts;

	input->route = decide_route(&facts);
	input->kind = note_of_route(input->route);
	return 0;
}

struct peer_case {
	struct peer_facts facts;
	__u8 answered;
	__u8 travels;
	__u16 accepted_kind;
	__u32 padding;
};

SEC("syscall")
int test_peer(struct peer_case *input)
{
	struct peer_facts facts = input->facts;

	input->answered = answer_is_note(&facts);
	input->travels = note_travels(&facts);
	input->accepted_kind = kind_when_accepted(kind_when_filed(facts.note.kind));
	return 0;
}

/* IPv4 in, normal form and its properties out. */
struct address_case {
	struct address address;
	__u8 v4;
	__u8 loopback;
	__u8 unspecified;
	__u8 link_local;
	__u32 padding;
};

SEC("syscall")
int test_address(struct address_case *input)
{
	struct address address = input->address;

	input->v4 = address_is_v4(&address);
	input->loopback = address_is_loopback(&address);
	input->unspecified = address_is_unspecified(&address);
	input->link_local = address_is_link_local_v6(&address);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
