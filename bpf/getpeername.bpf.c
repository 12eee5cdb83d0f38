// SPDX-License-Identifier: GPL-2.0
/* cgroup/getpeername4, getpeername6: a captured client sees the address it dialled, a served app
 * sees the real client. accept() asks here too (inet_getname with peer = 2), so its address is the
 * client's as well. */
#include "lib/decide_peer.h"

static __always_inline int peer_of(struct bpf_sock_addr *ctx, struct peer_facts *facts)
{
	struct socket *socket = bpf_sk_storage_get(&ambit_notes, ctx->sk, 0, 0);

	if (!socket)
		return 0;
	facts->note = socket->note;
	return answer_is_note(facts);
}

SEC("cgroup/getpeername4")
int ambit_peername4(struct bpf_sock_addr *ctx)
{
	struct peer_facts facts = {.port = bpf_ntohs(ctx->user_port), .family = AF_INET};

	address_from_v4(&facts.peer, ctx->user_ip4);
	if (peer_of(ctx, &facts)) {
		ctx->user_ip4 = address_word_at(&facts.note.address, 3);
		ctx->user_port = bpf_htons(facts.note.port);
	}
	return 1;
}

SEC("cgroup/getpeername6")
int ambit_peername6(struct bpf_sock_addr *ctx)
{
	struct peer_facts facts = {.port = bpf_ntohs(ctx->user_port), .family = AF_INET6};

	address_set_words(&facts.peer, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
			  ctx->user_ip6[3]);
	if (peer_of(ctx, &facts)) {
		ctx->user_ip6[0] = address_word_at(&facts.note.address, 0);
		ctx->user_ip6[1] = address_word_at(&facts.note.address, 1);
		ctx->user_ip6[2] = address_word_at(&facts.note.address, 2);
		ctx->user_ip6[3] = address_word_at(&facts.note.address, 3);
		ctx->user_port = bpf_htons(facts.note.port);
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
