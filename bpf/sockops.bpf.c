// SPDX-License-Identifier: GPL-2.0
/* sockops: carries a socket's note to the socket at the other end, within one namespace or, for
 * direct connections, from one pod of the node to another. The connecting side files it when its
 * source port is known and the SYN has not left; the accepted side claims it before accept()
 * returns (the child stays locked until then). And counts what has ended: nothing here runs while
 * bytes flow. */
#include "lib/counters.h"
#include "lib/decide_peer.h"
#include "lib/edges.h"
#include "lib/flow_log.h"
#include "lib/pods.h"
#include "lib/tuple.h"

/* The socket is counted when it ends. */
static __always_inline void begin_tally(struct tally *tally, __u64 cookie, __u8 security,
					__u8 known)
{
	tally->sampled_ns = 0;
	tally->cookie = cookie;
	tally->security = security;
	tally->known = known;
	tally->running = 1;
}

static __always_inline void follow_state(struct bpf_sock_ops *ctx)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
}

static __always_inline void file_note(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer_facts facts = {};
	struct flow_key key = {};
	struct socket *socket;
	__u16 kind;

	if (!sk)
		return;
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, 0);
	if (!socket)
		return;
	kind = socket->note.kind;
	if (kind == NOTE_TUNNEL || kind == NOTE_PASSED) {
		socket->tally.opened_ns = bpf_ktime_get_ns();
		begin_tally(&socket->tally, socket->note.client,
			    kind == NOTE_TUNNEL ? EDGE_TUNNEL : EDGE_PLAIN,
			    kind == NOTE_TUNNEL || is_known(&socket->note.chosen));
		follow_state(ctx);
		return;
	}
	key_of_connecting(ctx, &key);
	facts.note = socket->note;
	facts.peer = key.destination;
	facts.port = key.destination_port;
	facts.family = ctx->family;
	if (kind == NOTE_DIRECT) {
		facts.source_is_own = is_own_address(facts.note.client, &key.source);
		if (!facts.source_is_own)
			count(COUNT_UNATTESTED);
		socket->tally.opened_ns = bpf_ktime_get_ns();
		begin_tally(&socket->tally, facts.note.client,
			    facts.source_is_own ? EDGE_SAME_NODE : EDGE_PLAIN, 1);
		follow_state(ctx);
	}
	if (!note_travels(&facts))
		return;
	facts.note.kind = kind_when_filed(facts.note.kind);
	if (bpf_map_update_elem(&ambit_flows, &key, &facts.note, BPF_ANY)) {
		count(COUNT_DROP_FLOW_NOT_FILED);
		return;
	}
	/* To take the entry back if the handshake fails. */
	if (kind != NOTE_DIRECT)
		follow_state(ctx);
}

/* Takes the entry back; what the other end left on it when it refused the connection. */
static __always_inline enum refusal withdraw_note(struct bpf_sock_ops *ctx)
{
	enum refusal refusal = REFUSAL_NONE;
	struct flow_key key = {};
	struct note *flow;

	key_of_connecting(ctx, &key);
	flow = bpf_map_lookup_elem(&ambit_flows, &key);
	if (flow) {
		refusal = flow->refusal;
		bpf_map_delete_elem(&ambit_flows, &key);
	}
	return refusal;
}

static __always_inline void claim_note(struct bpf_sock_ops *ctx)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct bpf_sock *sk = ctx->sk;
	struct flow_key key = {};
	struct socket *socket;
	struct note *flow;

	tuple_of(ctx, &key.destination, &key.source);
	key.cookie = flow_cookie(&key.destination, cookie);
	key.source_port = remote_port_of(ctx);
	key.destination_port = ctx->local_port;
	flow = bpf_map_lookup_elem(&ambit_flows, &key);
	if (!flow || !sk)
		return;
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (socket) {
		socket->note = *flow;
		socket->note.kind = kind_when_accepted(flow->kind);
		if (socket->note.kind == NOTE_ATTESTED) {
			begin_tally(&socket->tally, cookie, EDGE_SAME_NODE, 1);
			follow_state(ctx);
		}
	} else {
		count(COUNT_DROP_NOTE_LOST);
	}
	bpf_map_delete_elem(&ambit_flows, &key);
}

static __always_inline void log_flow(struct bpf_sock_ops *ctx, const struct socket *socket,
				     const struct stream_facts *facts, int error,
				     enum refusal refusal)
{
	__u64 now = bpf_ktime_get_ns();
	struct flow_event *event = begin_event(now);

	if (!event)
		return;
	tuple_of(ctx, &event->source, &event->destination);
	event->dialled = socket->note.address;
	event->cookie = socket->tally.cookie;
	event->duration_ns = now - socket->tally.opened_ns;
	event->sent = bytes_sent(facts);
	event->received = bytes_taken(facts);
	event->retransmits = facts->retransmits;
	event->rtt_us = facts->srtt_us;
	event->error = error;
	event->source_port = ctx->local_port;
	event->destination_port = remote_port_of(ctx);
	event->dialled_port = socket->note.port;
	event->security = socket->tally.security;
	event->failed = !is_open(facts->state);
	event->refusal = refusal;
	__builtin_memset(event->padding, 0, sizeof(event->padding));
	bpf_ringbuf_submit(event, 0);
}

/* Counts a connection that has ended. `refusal`: why the other end refused it. */
static __always_inline void account_end(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
					struct socket *socket, enum refusal refusal)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);
	struct stream_facts facts = {};
	struct edge_key key = {};
	struct edge *edge;
	int opened;

	if (!tcp)
		return;
	stream_of(tcp, ctx->args[0], &facts);
	facts.active = socket->note.kind != NOTE_ATTESTED;
	opened = is_open(facts.state);
	edge_of_note(&key, &socket->note, socket->tally.cookie, socket->tally.security,
		     socket->tally.known, opened);
	socket->tally.running = 0;
	edge = edge_at(&key);
	if (edge) {
		if (opened)
			add(&edge->closed, 1);
		else if (refusal != REFUSAL_NONE && refusal < REFUSALS)
			add(&edge->refused[refusal], 1);
		else
			add(&edge->failed, 1);
		add(&edge->sent, bytes_sent(&facts));
		add(&edge->received, bytes_taken(&facts));
		add(&edge->retransmits, facts.retransmits);
		add_rtt(edge, facts.srtt_us);
	}
	if (socket->note.kind == NOTE_DIRECT || socket->note.kind == NOTE_PASSED)
		log_flow(ctx, socket, &facts, ((struct sock *)tcp)->sk_err, refusal);
}

/* Only sockets that filed a note or are counted asked for this. */
static __always_inline void end_of(struct bpf_sock_ops *ctx)
{
	enum refusal refusal = REFUSAL_NONE;
	struct bpf_sock *sk = ctx->sk;
	struct socket *socket;

	socket = sk ? bpf_sk_storage_get(&ambit_notes, sk, 0, 0) : 0;
	/* An open one's entry was claimed by the other end, or will be. */
	if (!is_open(ctx->args[0]))
		refusal = withdraw_note(ctx);
	if (socket && socket->tally.running)
		account_end(ctx, sk, socket, refusal);
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
		if (ctx->args[1] == BPF_TCP_CLOSE)
			end_of(ctx);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
