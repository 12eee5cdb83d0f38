// SPDX-License-Identifier: GPL-2.0
/* sk_lookup, one copy per enrolled namespace: who gets a new connection, and which UDP is refused.
 * The hook does not know its namespace, so each copy is loaded with the namespace's cookie as a
 * constant; the maps are shared.
 */
#include "lib/counters.h"
#include "lib/decide_datagram.h"
#include "lib/decide_lookup.h"
#include "lib/edges.h"
#include "lib/flows.h"
#include "lib/listeners.h"

/* Set before load; 0 finds no pod and refuses everything. */
const volatile __u64 netns_cookie = 0;

static __always_inline void tuple_of(struct bpf_sk_lookup *ctx, struct address *remote,
				     struct address *local)
{
	__u32 family = READ(ctx->family);

	address_of_family(remote, family, READ(ctx->remote_ip4), READ(ctx->remote_ip6[0]),
			  READ(ctx->remote_ip6[1]), READ(ctx->remote_ip6[2]),
			  READ(ctx->remote_ip6[3]));
	address_of_family(local, family, READ(ctx->local_ip4), READ(ctx->local_ip6[0]),
			  READ(ctx->local_ip6[1]), READ(ctx->local_ip6[2]),
			  READ(ctx->local_ip6[3]));
}

/* UDP, each datagram that no connected socket takes: the table first, which has a row for few. */
static __always_inline int judge_datagram(struct bpf_sk_lookup *ctx)
{
	struct datagram_facts facts = {};
	__u64 cookie = netns_cookie;
	void *table = bpf_map_lookup_elem(&ambit_policies, &cookie);
	struct pod *pod;

	if (!table)
		return SK_PASS;
	facts.verdict = policy_row(table, 0, ctx->local_port, IPPROTO_UDP);
	if (facts.verdict != VERDICT_DENY)
		return SK_PASS;
	tuple_of(ctx, &facts.remote, &facts.local);
	facts.remote_is_own = is_own_address(cookie, &facts.remote);
	pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	if (pod)
		facts.pod_state = pod->state;
	if (!refuses_datagram(&facts))
		return SK_PASS;
	count(COUNT_DROP_DATAGRAM_REFUSED);
	return SK_DROP;
}

static __always_inline int assign(struct bpf_sk_lookup *ctx, enum listener_kind kind,
				  enum counter assigned, enum counter missing)
{
	struct listener_key key = {.cookie = netns_cookie, .kind = kind};
	struct bpf_sock *listener = bpf_map_lookup_elem(&ambit_listeners, &key);
	long error;

	if (!listener) {
		/* The agent is away: nothing passes around it. */
		count(missing);
		return SK_DROP;
	}
	error = bpf_sk_assign(ctx, listener, 0);
	bpf_sk_release(listener);
	if (error) {
		count(COUNT_DROP_ASSIGN_FAILED);
		return SK_DROP;
	}
	count(assigned);
	return SK_PASS;
}

/* Counts a direct connection that is refused, and tells the end that dialled why. */
static __always_inline void refuse_direct(struct note *flow, enum refusal refusal)
{
	struct edge_key key = {};
	struct note accepted;

	if (!flow)
		return;
	flow->refusal = refusal;
	accepted = *flow;
	accepted.kind = NOTE_ATTESTED;
	edge_of_note(&key, &accepted, netns_cookie, EDGE_SAME_NODE, 1, 0);
	account_refused(&key, refusal);
}

static __always_inline void refuse_plaintext(const struct address *client)
{
	struct edge_key key = {.cookie = netns_cookie, .direction = EDGE_INBOUND};

	if (is_known(client))
		key.remote = *client;
	account_refused(&key, REFUSAL_PLAINTEXT);
}

SEC("sk_lookup")
int ambit_lookup(struct bpf_sk_lookup *ctx)
{
	struct lookup_facts facts = {};
	struct flow_key key = {};
	__u64 cookie = netns_cookie;
	struct note *flow;
	struct pod *pod;

	if (ctx->protocol == IPPROTO_UDP)
		return judge_datagram(ctx);
	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	tuple_of(ctx, &facts.remote, &facts.local);
	facts.local_port = ctx->local_port;
	key.cookie = flow_cookie(&facts.local, cookie);
	key.source = facts.remote;
	key.destination = facts.local;
	key.source_port = bpf_ntohs(ctx->remote_port);
	key.destination_port = facts.local_port;
	flow = bpf_map_lookup_elem(&ambit_flows, &key);
	if (flow) {
		facts.flow = flow->kind;
		if (flow->kind == NOTE_DIRECT)
			facts.verdict = policy_verdict(cookie, flow->client, facts.local_port);
	}
	pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	if (pod)
		facts.pod = *pod;
	facts.remote_is_own = is_own_address(cookie, &facts.remote);

	switch (decide_lookup(&facts)) {
	case LOOKUP_PASS:
		return SK_PASS;
	case LOOKUP_DELIVER:
		count(COUNT_DELIVERED);
		return SK_PASS;
	case LOOKUP_DIRECT:
		count(COUNT_ATTESTED);
		return SK_PASS;
	case LOOKUP_PROBE:
		count(COUNT_PASSED_PROBE);
		return SK_PASS;
	case LOOKUP_SELF:
		count(COUNT_SELF);
		return SK_PASS;
	case LOOKUP_OUTBOUND:
		return assign(ctx, LISTENER_OUTBOUND, COUNT_CAPTURED,
			      COUNT_DROP_NO_OUTBOUND_LISTENER);
	case LOOKUP_HBONE:
		return assign(ctx, LISTENER_HBONE, COUNT_TUNNELLED, COUNT_DROP_NO_HBONE_LISTENER);
	case LOOKUP_PLAINTEXT:
		return assign(ctx, LISTENER_PLAINTEXT, COUNT_JUDGED,
			      COUNT_DROP_NO_PLAINTEXT_LISTENER);
	case LOOKUP_REFUSE_PLAINTEXT:
		count(COUNT_DROP_PLAINTEXT_REFUSED);
		refuse_plaintext(&facts.remote);
		return SK_DROP;
	case LOOKUP_REFUSE_DIALLED:
		count(COUNT_DROP_LISTENER_DIALLED);
		return SK_DROP;
	case LOOKUP_REFUSE_DENIED:
		count(COUNT_DROP_POLICY_DENIED);
		refuse_direct(flow, REFUSAL_POLICY);
		return SK_DROP;
	case LOOKUP_REFUSE_NO_VERDICT:
		count(COUNT_DROP_NO_VERDICT);
		refuse_direct(flow, REFUSAL_NO_VERDICT);
		return SK_DROP;
	case LOOKUP_REFUSE_UNKNOWN:
		break;
	}
	count(COUNT_DROP_UNKNOWN_NAMESPACE);
	return SK_DROP;
}

char LICENSE[] SEC("license") = "GPL";
