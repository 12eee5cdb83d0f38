// SPDX-License-Identifier: GPL-2.0
/* tcx on every interface but loopback of an enrolled namespace. Egress: nothing leaves as TCP round
 * the other hooks. Ingress: no UDP to a group arrives where UDP is refused. Like sk_lookup a copy
 * per namespace, with its cookie as a constant. Passing means that the programs after this one
 * decide. */
#include "lib/counters.h"
#include "lib/decide_datagram.h"
#include "lib/decide_guard.h"

/* Set before load; 0 finds no pod and refuses all TCP. */
const volatile __u64 netns_cookie = 0;
/* Frames of this interface begin with an Ethernet header. */
const volatile __u8 is_ethernet = 1;

/* enum tcx_action_base of linux/bpf.h since 6.6 */
#define TCX_NEXT -1
#define TCX_DROP 2

/* linux/if_packet.h */
#define PACKET_LOOPBACK 5

#define SOCK_STREAM 1
#define SOCK_RAW 3

/* The id of the root of the cgroup hierarchy. */
#define ROOT_CGROUP 1

/* Its own, or a captured subflow of multipath TCP. */
static __always_inline int is_tcp(const struct bpf_sock *full)
{
	return full->type == SOCK_STREAM && full->protocol == IPPROTO_TCP &&
	       (full->family == AF_INET || full->family == AF_INET6);
}

static __always_inline enum guard_owner owner_of(struct __sk_buff *ctx, struct bpf_sock *sk,
						 struct bpf_sock *full)
{
	if (!sk)
		return OWNER_NONE;
	/* A socket of another family has no state of TCP, and is always whole. */
	if (!full)
		return OWNER_MINI;
	if (is_tcp(full))
		return OWNER_TCP;
	if (full->type == SOCK_RAW && full->protocol == IPPROTO_TCP &&
	    (full->family == AF_INET || full->family == AF_INET6) &&
	    bpf_skb_cgroup_id(ctx) == ROOT_CGROUP)
		return OWNER_KERNEL;
	return OWNER_OTHER;
}

/* The socket's connection is open: it cannot send an opening, and there is nothing to judge. This
 * is nearly every packet, so nothing is looked up before. */
static __always_inline int is_under_way(const struct bpf_sock *full)
{
	switch (full->state) {
	case BPF_TCP_ESTABLISHED:
	case BPF_TCP_FIN_WAIT1:
	case BPF_TCP_FIN_WAIT2:
	case BPF_TCP_CLOSE_WAIT:
	case BPF_TCP_LAST_ACK:
	case BPF_TCP_CLOSING:
		return 1;
	}
	return 0;
}

static __always_inline int is_agents(struct __sk_buff *ctx)
{
	__u64 cgroup = bpf_skb_cgroup_id(ctx);

	return bpf_map_lookup_elem(&ambit_agents, &cgroup) != 0;
}

/* What only the opening of a connection asks for. */
static __always_inline void facts_of_opening(struct __sk_buff *ctx, struct bpf_sock *full,
					     struct guard_facts *facts)
{
	struct socket *socket;

	socket = bpf_sk_storage_get(&ambit_notes, full, 0, 0);
	if (socket)
		facts->note = socket->note;
	/* connect() leaves these on a pod's sockets only. */
	if (facts->note.kind == NOTE_DIRECT)
		facts->source_is_own = is_own_address(facts->cookie, &facts->packet.source);
	else if (facts->note.kind != NOTE_PASSED)
		facts->is_agent = is_agents(ctx);
}

/* All packets but those of open connections. A function of its own, so that those pay for nothing
 * in it. */
static __noinline int judge(struct __sk_buff *ctx, struct bpf_sock *sk, struct bpf_sock *full)
{
	struct guard_facts facts = {.cookie = netns_cookie};
	struct pod *pod;

	facts.owner = owner_of(ctx, sk, full);
	if (is_ethernet)
		read_frame(ctx, IPPROTO_TCP, &facts.packet);
	else
		read_bare(ctx, IPPROTO_TCP, &facts.packet);
	if (facts.packet.kind == PACKET_OTHER)
		return TCX_NEXT;
	facts.is_forwarded = ctx->ingress_ifindex != 0;
	pod = bpf_map_lookup_elem(&ambit_pods, &facts.cookie);
	if (pod)
		facts.pod_state = pod->state;
	if (facts.owner == OWNER_TCP && full && facts.packet.kind == PACKET_TCP &&
	    is_opening(&facts.packet))
		facts_of_opening(ctx, full, &facts);

	switch (decide_guard(&facts)) {
	case GUARD_PASS:
		return TCX_NEXT;
	case GUARD_DROP_SYN:
		count(COUNT_DROP_GUARD_SYN);
		break;
	case GUARD_DROP_PEER:
		count(COUNT_DROP_GUARD_PEER);
		break;
	case GUARD_DROP_HANDMADE:
		count(COUNT_DROP_GUARD_HANDMADE);
		break;
	case GUARD_DROP_FORWARDED:
		count(COUNT_DROP_GUARD_FORWARDED);
		break;
	case GUARD_DROP_UNOWNED:
		count(COUNT_DROP_GUARD_UNOWNED);
		break;
	case GUARD_DROP_UNREADABLE:
		count(COUNT_DROP_GUARD_UNREADABLE);
		break;
	case GUARD_DROP_UNKNOWN:
		count(COUNT_DROP_GUARD_UNKNOWN);
		break;
	case GUARD_DROP_LOOPBACK:
		count(COUNT_DROP_GUARD_LOOPBACK);
		break;
	}
	return TCX_DROP;
}

SEC("tc")
int ambit_guard(struct __sk_buff *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct bpf_sock *full = NULL;

	if (sk)
		full = bpf_sk_fullsock(sk);
	if (full && is_tcp(full) && is_under_way(full))
		return TCX_NEXT;
	return judge(ctx, sk, full);
}

/* Of an ordinary frame, without more ado: not UDP. */
static __always_inline int is_plainly_other(struct __sk_buff *ctx)
{
	const __u8 *frame = (const __u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	__u8 protocol;

	if (!is_ethernet || frame + ETH_HEADER + 20 > end)
		return 0;
	if (frame[12] == ETH_P_IP >> 8 && frame[13] == (ETH_P_IP & 255))
		protocol = frame[ETH_HEADER + 9];
	else if (frame[12] == ETH_P_IPV6 >> 8 && frame[13] == (ETH_P_IPV6 & 255))
		protocol = frame[ETH_HEADER + 6];
	else
		return 0;
	return protocol == IPPROTO_TCP || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* UDP that sk_lookup does not see, since it is for a group or for all. */
static __noinline int judge_group(struct __sk_buff *ctx)
{
	struct datagram_facts facts = {};
	struct packet packet = {};
	__u64 cookie = netns_cookie;
	struct pod *pod;
	void *table;

	if (is_ethernet)
		read_frame(ctx, IPPROTO_UDP, &packet);
	else
		read_bare(ctx, IPPROTO_UDP, &packet);
	if (packet.kind != PACKET_UDP && packet.kind != PACKET_UNREADABLE)
		return TCX_NEXT;
	facts.local_is_own = is_own_address(cookie, &packet.destination);
	if (facts.local_is_own)
		return TCX_NEXT;
	table = bpf_map_lookup_elem(&ambit_policies, &cookie);
	/* What hides its protocol from a walk of so many headers is not meant well. */
	if (table && packet.kind == PACKET_UNREADABLE)
		facts.verdict = VERDICT_DENY;
	else if (table)
		facts.verdict = policy_row(table, 0, packet.destination_port, IPPROTO_UDP);
	pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	if (pod)
		facts.pod_state = pod->state;
	if (!refuses_group_datagram(&facts))
		return TCX_NEXT;
	count(COUNT_DROP_DATAGRAM_REFUSED);
	return TCX_DROP;
}

SEC("tc")
int ambit_guard_in(struct __sk_buff *ctx)
{
	/* The pod's own, given back to itself: no frame from outside is of this kind. */
	if (is_plainly_other(ctx) || ctx->pkt_type == PACKET_LOOPBACK)
		return TCX_NEXT;
	return judge_group(ctx);
}

char LICENSE[] SEC("license") = "GPL";
