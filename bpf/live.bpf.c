// SPDX-License-Identifier: GPL-2.0
/* iter/bpf_sk_storage_map over the notes: what connections that run now have carried so far, a
 * record each, for the agent to add to the edges. It asks when it is asked itself; nothing is
 * counted here but, every few seconds of a connection's life, its round-trip time. */
#include "lib/edges.h"

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__bpf_sk_storage_map {
	struct bpf_iter_meta *meta;
	struct bpf_map *map;
	struct sock *sk;
	void *value;
} __attribute__((preserve_access_index));

/* How often a connection's round-trip time is counted while it lives. */
const volatile __u64 sample_every_ns = 10000000000ULL;

struct live {
	struct edge_key key;
	__u64 sent;
	__u64 received;
	__u32 retransmits;
	__u32 padding;
};

/* Named here, so that the BTF has it. */
const struct live *export_live __attribute__((unused));

static __always_inline void sample_rtt(struct edge *edge, struct tally *tally, __u32 srtt_us)
{
	__u64 now = bpf_ktime_get_ns();

	if (tally->sampled_ns == 0) {
		/* Seen for the first time: it will be taken when it has lived for a while. */
		tally->sampled_ns = now;
		return;
	}
	if (srtt_us == 0 || now - tally->sampled_ns < sample_every_ns)
		return;
	tally->sampled_ns = now;
	add_rtt(edge, srtt_us);
}

SEC("iter/bpf_sk_storage_map")
int ambit_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct socket *socket = ctx->value;
	struct sock *sk = ctx->sk;
	struct stream_facts facts = {};
	struct tcp_sock *tcp;
	struct live live = {};
	struct edge *edge;
	__u8 state;

	if (!sk || !socket || !socket->tally.running || !is_counted(socket->note.kind))
		return 0;
	state = sk->__sk_common.skc_state;
	if (!is_open(state))
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	stream_of(tcp, state, &facts);
	facts.active = socket->note.kind != NOTE_ATTESTED;
	edge_of_note(&live.key, &socket->note, socket->tally.cookie, socket->tally.security,
		     socket->tally.known, 1);
	/* Takes its place among the edges now, so that it ends on the same one. */
	edge = edge_at(&live.key);
	if (!edge)
		return 0;
	sample_rtt(edge, &socket->tally, facts.srtt_us);
	live.sent = bytes_sent(&facts);
	live.received = bytes_taken(&facts);
	live.retransmits = facts.retransmits;
	bpf_seq_write(ctx->meta->seq, &live, sizeof(live));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
