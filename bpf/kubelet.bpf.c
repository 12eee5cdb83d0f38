// SPDX-License-Identifier: GPL-2.0
/* sockops on the kubelet's own cgroup: its connections are filed, so that the pods' sk_lookup knows
 * probes from whatever else comes from the node. That the program runs at all says who connects:
 * it is attached to no other cgroup. */
#include "lib/counters.h"
#include "lib/tuple.h"

static __always_inline void file_probe(struct bpf_sock_ops *ctx)
{
	struct note note = {.kind = NOTE_KUBELET};
	struct flow_key key = {};

	key_of_connecting(ctx, &key);
	if (bpf_map_update_elem(&ambit_flows, &key, &note, BPF_ANY)) {
		count(COUNT_DROP_FLOW_NOT_FILED);
		return;
	}
	/* To take the entry back at the end. */
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void withdraw_probe(struct bpf_sock_ops *ctx)
{
	struct flow_key key = {};

	key_of_connecting(ctx, &key);
	bpf_map_delete_elem(&ambit_flows, &key);
}

SEC("sockops")
int ambit_kubelet(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		file_probe(ctx);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] == BPF_TCP_CLOSE)
			withdraw_probe(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
