// SPDX-License-Identifier: GPL-2.0
/* cgroup/connect4, connect6: outbound TCP of an enrolled pod goes to the agent. The destination is
 * noted on the socket and replaced by loopback of the pod's own namespace. Returns 1 = go on, 0 =
 * refuse (EPERM). */
#include "lib/counters.h"
#include "lib/decide_connect.h"
#include "lib/notes.h"

#define PROCEED 1
#define REFUSE 0

/* asm-generic/socket.h */
#define SOL_SOCKET 1
#define SO_BINDTODEVICE 25

/* A socket bound to eth0 cannot reach loopback: its SYN would leave the pod, to nowhere. It is to
 * reach the agent like any other, so the binding goes; the agent's own connection takes the pod's
 * routes. 0 if it may not be undone (the kernel asks for CAP_NET_RAW). */
static __always_inline int unbind_device(struct bpf_sock_addr *ctx)
{
	char none[1] = {};

	if (ctx->sk->bound_dev_if == 0)
		return 1;
	return bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none)) == 0;
}

/* Decides about one connect. `destination` and `port` are rewritten if it is captured. */
static __always_inline int capture(struct bpf_sock_addr *ctx, struct address *destination,
				   __u16 *port, int *rewritten)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct pod *pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	struct connect_facts facts = {.destination = *destination, .port = *port};
	struct note *note;

	if (!pod)
		return PROCEED;
	facts.pod_state = pod->state;
	facts.is_tcp = ctx->protocol == IPPROTO_TCP;
	facts.is_agent = is_agent();
	facts.is_own = is_own_address(cookie, destination);

	switch (decide_connect(&facts)) {
	case CONNECT_PASS_AGENT:
		/* The agent wrote the note on its socket, it stays. */
		count(COUNT_PASSED_AGENT);
		return PROCEED;
	case CONNECT_PASS_LOCAL:
		count(COUNT_PASSED_LOCAL);
		/* fallthrough */
	case CONNECT_PASS:
		/* A socket may connect again: what it dialled before is over. */
		if (facts.is_tcp)
			bpf_sk_storage_delete(&ambit_notes, ctx->sk);
		return PROCEED;
	case CONNECT_CAPTURE:
		break;
	}

	if (!unbind_device(ctx)) {
		count(COUNT_DROP_BOUND_TO_DEVICE);
		return REFUSE;
	}
	note = bpf_sk_storage_get(&ambit_notes, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!note) {
		count(COUNT_DROP_NO_MEMORY);
		return REFUSE;
	}
	note->address = *destination;
	note->port = *port;
	note->kind = NOTE_DIALLED;
	capture_address(destination, address_is_v4(destination));
	*port = CAPTURE_PORT;
	*rewritten = 1;
	count(COUNT_REDIRECTED);
	return PROCEED;
}

SEC("cgroup/connect4")
int ambit_connect4(struct bpf_sock_addr *ctx)
{
	struct address destination;
	__u16 port = bpf_ntohs(ctx->user_port);
	int rewritten = 0;
	int verdict;

	address_from_v4(&destination, ctx->user_ip4);
	verdict = capture(ctx, &destination, &port, &rewritten);
	if (rewritten) {
		ctx->user_ip4 = address_word_at(&destination, 3);
		ctx->user_port = bpf_htons(port);
	}
	return verdict;
}

SEC("cgroup/connect6")
int ambit_connect6(struct bpf_sock_addr *ctx)
{
	struct address destination;
	__u16 port = bpf_ntohs(ctx->user_port);
	int rewritten = 0;
	int verdict;

	address_set_words(&destination, ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2],
			  ctx->user_ip6[3]);
	verdict = capture(ctx, &destination, &port, &rewritten);
	if (rewritten) {
		ctx->user_ip6[0] = address_word_at(&destination, 0);
		ctx->user_ip6[1] = address_word_at(&destination, 1);
		ctx->user_ip6[2] = address_word_at(&destination, 2);
		ctx->user_ip6[3] = address_word_at(&destination, 3);
		ctx->user_port = bpf_htons(port);
	}
	return verdict;
}

char LICENSE[] SEC("license") = "GPL";
