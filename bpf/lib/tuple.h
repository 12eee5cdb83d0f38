/* SPDX-License-Identifier: GPL-2.0 */
/* A connection's tuple as the sockops hooks see it, and the key of its flow. */
#pragma once

#include "flows.h"

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
