// SPDX-License-Identifier: GPL-2.0
/* The decisions as programs of their own, for BPF_PROG_TEST_RUN: facts in, verdict out in the same
 * struct. Tests: test/kernel/decide.kernel.test.ts. */
#include "../lib/decide_connect.h"
#include "../lib/decide_count.h"
#include "../lib/decide_lookup.h"
#include "../lib/decide_open.h"
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

struct count_case {
	struct stream_facts facts;
	__u64 sent;
	__u64 taken;
	__u32 bucket;
	__u8 open;
	__u8 padding[3];
};

SEC("syscall")
int test_count(struct count_case *input)
{
	struct stream_facts facts = input->facts;

	input->sent = bytes_sent(&facts);
	input->taken = bytes_taken(&facts);
	input->bucket = rtt_bucket(facts.srtt_us);
	input->open = is_open(facts.state);
	return 0;
}

struct edge_case {
	struct note note;
	__u64 cookie;
	__u8 security;
	__u8 known;
	__u8 served;
	__u8 padding[5];
	struct edge_key key;
};

SEC("syscall")
int test_edge(struct edge_case *input)
{
	struct note note = input->note;
	struct edge_key key = {};

	edge_of_note(&key, &note, input->cookie, input->security, input->known, input->served);
	input->key = key;
	return 0;
}

struct open_case {
	struct open_facts facts;
	enum open_verdict verdict;
	__u32 padding;
};

SEC("syscall")
int test_open(struct open_case *input)
{
	struct open_facts facts = input->facts;

	input->verdict = decide_open(&facts);
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
