// SPDX-License-Identifier: GPL-2.0
/* sockops: carries a socket's note to the socket at the other end, within one namespace or, for
 * direct connections, from one pod of the node to another. The connecting side files it when its
 * source port is known and the SYN has not left; the accepted side claims it before accept()
 * returns (the child stays locked until then). */
#include "lib/counters.h"
#include "lib/decide_peer.h"
#include "lib/flows.h"
#include "lib/pods.h"

/* The tuple as this socket sees it. A dual-stack socket has v4-mapped addresses, which are the
 * normal form already. */
static __always_inline void tuple_of(struct bpf_sock_ops *ctx, struct address *local,
				     struct address *remote)
{
	__u32 family = READ(ctx->family);

	address_of_family(local, family, READ(ctx->local_ip4), READ(ctx->local_ip6[0]),
			  READ(ctx->local_ip6[1]), READ(ctx->local_ip6[2]),
			  READ(ctx->local_ip6[3]));
	address_of_family(remote, family, READ(ctx->remote_ip4), READ(ctx->remote_ip6[0]),
			  READ(ctx->remote_ip6[1]), READ(ctx->remote_ip6[2]),
			  READ(ctx->remote_ip6[3]));
}

/* remote_port holds the port in network order in its upper half (as the kernel's selftests read
 * it). */
static __always_inline __u16 remote_port_of(struct bpf_sock_ops *ctx)
{
	return bpf_ntohl(ctx->remote_port);
}

static __always_inline void key_of_connecting(struct bpf_sock_ops *ctx, struct flow_key *key)
{
	tuple_of(ctx, &key->source, &key->destination);
	key->cookie = flow_cookie(&key->destination, bpf_get_netns_cookie(ctx));
	key->source_port = ctx->local_port;
	key->destination_port = remote_port_of(ctx);
}

static __always_inline void file_note(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer_facts facts = {};
	struct flow_key key = {};
	struct socket *socket;

	if (!sk)
		return;
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, 0);
	if (!socket)
		return;
	key_of_connecting(ctx, &key);
	facts.note = socket->note;
	facts.peer = key.destination;
	facts.port = key.destination_port;
	facts.family = ctx->family;
	if (facts.note.kind == NOTE_DIRECT) {
		facts.source_is_own = is_own_address(facts.note.client, &key.source);
		if (!facts.source_is_own)
			count(COUNT_UNATTESTED);
	}
	if (!note_travels(&facts))
		return;
	facts.note.kind = kind_when_filed(facts.note.kind);
	if (bpf_map_update_elem(&ambit_flows, &key, &facts.note, BPF_ANY)) {
		count(COUNT_DROP_FLOW_NOT_FILED);
		return;
	}
	/* To take the entry back if the handshake fails. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void withdraw_note(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};

	key_of_connecting(ctx, &key);
	bpf_map_delete_elem(&ambit_flows, &key);
}

static __always_inline void claim_note(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct flow_key key = {};
	struct socket *socket;
	struct note *flow;

	tuple_of(ctx, &key.destination, &key.source);
	key.cookie = flow_cookie(&key.destination, bpf_get_netns_cookie(ctx));
	key.source_port = remote_port_of(ctx);
	key.destination_port = ctx->local_port;
	flow = bpf_map_lookup_elem(&ambit_flows, &key);
	if (!flow || !sk)
		return;
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (socket) {
		socket->note = *flow;
		socket->note.kind = kind_when_accepted(flow->kind);
	} else {
		count(COUNT_DROP_NOTE_LOST);
	}
	bpf_map_delete_elem(&ambit_flows, &key);
}

SEC("sockops")
int ambit_sockops(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		file_note(ctx);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		claim_note(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		/* Only sockets that filed a note asked for this. */
		if (ctx->args[1] == BPF_TCP_CLOSE)
			withdraw_note(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
