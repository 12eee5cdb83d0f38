/* SPDX-License-Identifier: GPL-2.0 */
/* The few members of the kernel's own types that counting needs; their offsets are found at load.
 */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "decide_count.h"

struct sock_common {
	volatile unsigned char skc_state;
	unsigned long skc_flags;
} __attribute__((preserve_access_index));

enum sock_flags {
	/* The peer's FIN has been taken. */
	SOCK_DONE = 1,
};

struct sock {
	struct sock_common __sk_common;
	int sk_err;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u64 bytes_acked;
	__u64 bytes_received;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 srtt_us;
	__u32 total_retrans;
} __attribute__((preserve_access_index));

/* Reads what is known of a stream. `state` is told by the caller: a callback of a change is run
 * before it. */
static __always_inline void stream_of(struct tcp_sock *tcp, __u8 state, struct stream_facts *facts)
{
	struct sock *sk = (struct sock *)tcp;

	facts->state = state;
	facts->acked = tcp->bytes_acked;
	facts->received = tcp->bytes_received;
	facts->unacked = tcp->snd_nxt - tcp->snd_una;
	facts->all_sent = tcp->snd_nxt == tcp->write_seq;
	facts->fin_taken =
		(sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_DONE) &
		 1) != 0;
	facts->srtt_us = tcp->srtt_us >> 3;
	facts->retransmits = tcp->total_retrans;
}
