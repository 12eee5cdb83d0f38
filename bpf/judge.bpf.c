// SPDX-License-Identifier: GPL-2.0
/* iter/tcp, run in a pod's namespace when the pod is enrolled and when its policy has changed: ends
 * direct connections that are no longer allowed, and tells the agent of those that nobody judged
 * when they were made, to end what it condemns at the next run. The walk has each socket locked, as
 * bpf_sock_destroy (kernel 6.5) wants it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "lib/counters.h"
#include "lib/decide_open.h"

struct seq_file;
struct tcp_sock;

struct net {
	__u64 net_cookie;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} __attribute__((preserve_access_index));

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} __attribute__((preserve_access_index));

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));

extern int bpf_sock_destroy(struct sock_common *sock) __ksym;

/* A socket the agent is told of. */
struct open_socket {
	struct address local;
	struct address remote;
	/* Of the socket: what it is condemned by. */
	__u64 cookie;
	__u16 local_port;
	__u16 remote_port;
	/* It listens; all but the local port is zero. */
	__u8 listens;
	__u8 padding[3];
};

/* Named here, so that the BTF has it. */
const struct open_socket *export_open_socket __attribute__((unused));

/* Cookies of sockets that the agent has judged and that are to end. Of one run, and this agent's
 * alone. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	/* What is beyond is ended by the next run. */
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);
	__type(value, __u32);
} ambit_condemned SEC(".maps");

static __always_inline void tuple_of(struct sock_common *sk, struct open_facts *facts)
{
	if (sk->skc_family == AF_INET) {
		address_from_v4(&facts->local, sk->skc_rcv_saddr);
		address_from_v4(&facts->remote, sk->skc_daddr);
	} else {
		address_set_words(&facts->local, sk->skc_v6_rcv_saddr.in6_u.u6_addr32[0],
				  sk->skc_v6_rcv_saddr.in6_u.u6_addr32[1],
				  sk->skc_v6_rcv_saddr.in6_u.u6_addr32[2],
				  sk->skc_v6_rcv_saddr.in6_u.u6_addr32[3]);
		address_set_words(&facts->remote, sk->skc_v6_daddr.in6_u.u6_addr32[0],
				  sk->skc_v6_daddr.in6_u.u6_addr32[1],
				  sk->skc_v6_daddr.in6_u.u6_addr32[2],
				  sk->skc_v6_daddr.in6_u.u6_addr32[3]);
	}
	facts->local_port = sk->skc_num;
}

static __always_inline void tell(struct bpf_iter__tcp *ctx, const struct open_facts *facts,
				 __u64 cookie, __u16 remote_port)
{
	struct open_socket out = {.local_port = facts->local_port};

	if (facts->state == STATE_LISTEN) {
		out.listens = 1;
	} else {
		out.local = facts->local;
		out.remote = facts->remote;
		out.cookie = cookie;
		out.remote_port = remote_port;
	}
	bpf_seq_write(ctx->meta->seq, &out, sizeof(out));
}

SEC("iter/tcp")
int ambit_judge(struct bpf_iter__tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	struct open_facts facts = {};
	struct socket *socket;
	__u64 cookie;
	__u64 netns;

	/* Handshakes and what waits to be forgotten are no whole sockets. */
	if (!sk || !bpf_skc_to_tcp_sock(sk))
		return 0;
	netns = sk->skc_net.net->net_cookie;
	facts.state = sk->skc_state;
	tuple_of(sk, &facts);
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, 0);
	if (socket) {
		facts.note = socket->note.kind;
		if (facts.note == NOTE_ATTESTED)
			facts.verdict =
				policy_verdict(netns, socket->note.client, facts.local_port);
	}
	facts.remote_is_own = is_own_address(netns, &facts.remote);
	cookie = bpf_get_socket_cookie(sk);
	facts.condemned = bpf_map_lookup_elem(&ambit_condemned, &cookie) != 0;

	switch (decide_open(&facts)) {
	case OPEN_LEAVE:
		break;
	case OPEN_LISTENS:
	case OPEN_ASK:
		tell(ctx, &facts, cookie, bpf_ntohs(sk->skc_dport));
		break;
	case OPEN_DESTROY_DIRECT:
		count(COUNT_DROP_REVOKED);
		bpf_sock_destroy(sk);
		break;
	case OPEN_DESTROY_OLDER:
		count(COUNT_DROP_OLDER);
		bpf_sock_destroy(sk);
		break;
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
