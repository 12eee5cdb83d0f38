// SPDX-License-Identifier: GPL-2.0
/* What connections that run now have carried so far, a record each, for the agent to add to the
 * edges. It asks when it is asked itself; nothing is counted here but, every few seconds of a
 * connection's life, its round-trip time. One walk goes over the notes of all pods at once
 * (iter/bpf_sk_storage_map); where the kernel lends no program an iterator over a map, another goes
 * over the files of all processes (iter/task_file). It misses who has no file any more, or not yet,
 * which is counted at its end; and it meets a socket that processes share once for each. The walk
 * of a namespace's sockets (iter/tcp) would look at every bucket of the kernel's table, 3 ms for
 * each pod. */
#include "lib/edges.h"

struct seq_file;
struct bpf_map;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct file;

/* The kernel's own; this program has another of that name. */
struct socket___kernel {
	struct sock *sk;
} __attribute__((preserve_access_index));

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct file *file;
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
	/* Of the socket, to know it again; 0: nobody meets it twice. */
	__u64 cookie;
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

/* Tells of one socket, if it counts. */
static __always_inline void look_at(struct seq_file *seq, struct sock *sk, struct socket *socket,
				    __u64 cookie)
{
	struct stream_facts facts = {};
	struct live live = {.cookie = cookie};
	struct tcp_sock *tcp;
	struct edge *edge;
	__u8 state;

	if (!socket->tally.running || !is_counted(socket->note.kind))
		return;
	state = sk->__sk_common.skc_state;
	if (!is_open(state))
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	stream_of(tcp, state, &facts);
	facts.active = socket->note.kind != NOTE_ATTESTED;
	edge_of_note(&live.key, &socket->note, socket->tally.cookie, socket->tally.security,
		     socket->tally.known, 1);
	/* Takes its place among the edges now, so that it ends on the same one. */
	edge = edge_at(&live.key);
	if (!edge)
		return;
	sample_rtt(edge, &socket->tally, facts.srtt_us);
	live.sent = bytes_sent(&facts);
	live.received = bytes_taken(&facts);
	live.retransmits = facts.retransmits;
	bpf_seq_write(seq, &live, sizeof(live));
}

SEC("iter/bpf_sk_storage_map")
int ambit_live(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct socket *socket = ctx->value;
	struct sock *sk = ctx->sk;

	if (sk && socket)
		look_at(ctx->meta->seq, sk, socket, 0);
	return 0;
}

SEC("iter/task_file")
int ambit_live_files(struct bpf_iter__task_file *ctx)
{
	struct file *file = ctx->file;
	struct socket___kernel *kernel;
	struct socket *socket;
	struct sock *sk;

	if (!file)
		return 0;
	kernel = (struct socket___kernel *)bpf_sock_from_file(file);
	if (!kernel)
		return 0;
	sk = kernel->sk;
	if (!sk)
		return 0;
	socket = bpf_sk_storage_get(&ambit_notes, sk, 0, 0);
	if (socket)
		look_at(ctx->meta->seq, sk, socket, bpf_get_socket_cookie(sk));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
