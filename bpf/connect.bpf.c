// SPDX-License-Identifier: GPL-2.0
/* cgroup/connect4, connect6: where outbound TCP of an enrolled pod goes. Services are resolved
 * here. To a pod of this node, where policy lets the kernel say so, or to something outside the
 * mesh it goes itself; all else goes to the agent: the destination is noted on the socket and
 * replaced by loopback of the pod's own namespace. Returns 1 = go on, 0 = refuse (EPERM). */
#include "lib/balance.h"
#include "lib/counters.h"
#include "lib/decide_connect.h"
#include "lib/decide_route.h"
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

/* True for a socket on which the agent wrote that it proves the pod's way. A pod cannot write
 * notes. */
static __always_inline int is_canary(struct bpf_sock_addr *ctx)
{
	struct socket *socket = bpf_sk_storage_get(&ambit_notes, ctx->sk, 0, 0);

	return socket && socket->note.kind == NOTE_CANARY;
}

/* What is found out about one connect() of an enrolled pod on its way to a decision. */
struct dial {
	struct address destination;
	struct backend endpoint;
	__u64 cookie;
	__u16 port;
	/* An endpoint was chosen for a service. */
	__u8 chosen;
};

/* True if the agent must see it, whatever the endpoint; else `dial->endpoint` says which one is
 * meant. */
static __always_inline int service_needs_agent(struct dial *dial)
{
	struct service_key key = {.address = dial->destination, .port = dial->port};
	struct service *service = bpf_map_lookup_elem(&ambit_services, &key);

	if (!service) {
		dial->endpoint.address = dial->destination;
		dial->endpoint.port = dial->port;
		return 0;
	}
	if (service->kind != SERVICE_BALANCED)
		return 1;
	if (!choose_backend(&key, service, dial->cookie, &dial->endpoint)) {
		count(COUNT_MISSED_BACKEND);
		return 1;
	}
	dial->chosen = 1;
	return 0;
}

/* Where it goes, by the tables of the agent; they say nothing before they are whole. */
static __always_inline enum route route_of(struct dial *dial, const struct pod *pod)
{
	__u32 flags = settings_flags();
	struct route_facts facts = {};
	struct workload *workload;

	if (!(pod->flags & POD_DIRECT) || !(flags & SETTINGS_SYNCED))
		return ROUTE_AGENT;
	if (service_needs_agent(dial))
		return ROUTE_AGENT;
	facts.port = dial->endpoint.port;
	facts.chosen = dial->chosen;
	facts.pass_unknown = (flags & SETTINGS_PASS_UNKNOWN) != 0;
	facts.other_family =
		address_is_v4(&dial->destination) != address_is_v4(&dial->endpoint.address);
	workload = bpf_map_lookup_elem(&ambit_workloads, &dial->endpoint.address);
	if (workload) {
		facts.known = 1;
		facts.class = workload->class;
		if (workload->class == WORKLOAD_DIRECT)
			facts.verdict = policy_verdict(workload->cookie, dial->cookie, facts.port);
	}
	return decide_route(&facts);
}

/* Notes on the socket what was dialled and what becomes of it; 0 if there is no memory. */
static __always_inline int take_note(struct bpf_sock_addr *ctx, const struct dial *dial,
				     enum note_kind kind)
{
	struct socket *socket =
		bpf_sk_storage_get(&ambit_notes, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!socket) {
		count(COUNT_DROP_NO_MEMORY);
		return 0;
	}
	socket->note.address = dial->destination;
	socket->note.port = dial->port;
	socket->note.kind = kind;
	socket->note.client = dial->cookie;
	/* Without a choice there is none to advise the agent of; the others go there. */
	if (kind == NOTE_DIALLED && !dial->chosen) {
		__builtin_memset(&socket->note.chosen, 0, sizeof(socket->note.chosen));
		socket->note.chosen_port = 0;
	} else {
		socket->note.chosen = dial->endpoint.address;
		socket->note.chosen_port = dial->endpoint.port;
	}
	return 1;
}

/* Decides about one connect. `destination` and `port` are rewritten if it goes elsewhere. */
static __always_inline int redirect(struct bpf_sock_addr *ctx, struct address *destination,
				    __u16 *port, int *rewritten)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct pod *pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	struct connect_facts facts = {.destination = *destination, .port = *port};
	struct dial dial = {.destination = *destination, .port = *port, .cookie = cookie};
	enum route route;

	if (!pod)
		return PROCEED;
	facts.pod_state = pod->state;
	facts.is_tcp = ctx->protocol == IPPROTO_TCP;
	facts.is_agent = is_agent();
	facts.is_canary = facts.is_agent && facts.is_tcp && is_canary(ctx);
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
	case CONNECT_REFUSE_LINK_LOCAL:
		count(COUNT_DROP_LINK_LOCAL);
		return REFUSE;
	case CONNECT_CAPTURE:
		break;
	}

	route = facts.is_canary ? ROUTE_AGENT : route_of(&dial, pod);
	if (route == ROUTE_AGENT && !unbind_device(ctx)) {
		count(COUNT_DROP_BOUND_TO_DEVICE);
		return REFUSE;
	}
	if (!take_note(ctx, &dial, facts.is_canary ? NOTE_CANARY : note_of_route(route)))
		return REFUSE;
	if (route == ROUTE_AGENT) {
		capture_address(destination, address_is_v4(destination));
		*port = CAPTURE_PORT;
		*rewritten = 1;
		count(facts.is_canary ? COUNT_CANARY : COUNT_REDIRECTED);
		return PROCEED;
	}
	if (dial.chosen) {
		*destination = dial.endpoint.address;
		*port = dial.endpoint.port;
		*rewritten = 1;
	}
	count(route == ROUTE_DIRECT ? COUNT_DIRECT : COUNT_PASSED_OUTSIDE);
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
	verdict = redirect(ctx, &destination, &port, &rewritten);
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
	verdict = redirect(ctx, &destination, &port, &rewritten);
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
