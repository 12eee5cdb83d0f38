// SPDX-License-Identifier: GPL-2.0
/* cgroup/setsockopt: a packet socket can be told to hand its frames to the driver, an XDP socket
 * does nothing else: past every hook at the exit of an interface, the guard too. In an enrolled
 * pod neither is allowed. Returns 1 = go on, 0 = refuse (EPERM). */
#include "lib/counters.h"
#include "lib/pods.h"

#define PROCEED 1
#define REFUSE 0
/* The smallest there is. */
#define PAGE 4096

/* linux/socket.h, linux/if_packet.h, linux/if_xdp.h */
#define SOL_PACKET 263
#define PACKET_QDISC_BYPASS 20
#define SOL_XDP 283
#define XDP_TX_RING 3

SEC("cgroup/setsockopt")
int ambit_setsockopt(struct bpf_sockopt *ctx)
{
	int sends_past = (ctx->level == SOL_PACKET && ctx->optname == PACKET_QDISC_BYPASS) ||
			 (ctx->level == SOL_XDP && ctx->optname == XDP_TX_RING);
	struct pod *pod;
	__u64 cookie;

	/* More than a page the kernel shows no program, and before 6.5 it refuses the call unless
	 * told to take the caller's bytes. */
	if (ctx->optlen > PAGE)
		ctx->optlen = 0;
	if (!sends_past)
		return PROCEED;
	cookie = bpf_get_netns_cookie(ctx);
	pod = bpf_map_lookup_elem(&ambit_pods, &cookie);
	if (!pod)
		return PROCEED;
	count(COUNT_DROP_DIRECT_SENDER);
	return REFUSE;
}

char LICENSE[] SEC("license") = "GPL";
