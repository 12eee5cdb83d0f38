/* SPDX-License-Identifier: GPL-2.0 */
/* How many bytes of the apps a TCP stream has carried, as what, and under which edge it is counted:
 * facts in, numbers out, no maps and no hook. */
#pragma once

#include "notes.h"

/* What the kernel knows of a stream. */
struct stream_facts {
	/* Acknowledged by the peer: bytes_acked, which counts an active opener's SYN and the FIN
	   too. */
	__u64 acked;
	/* Taken in order: bytes_received, which counts the peer's FIN too. */
	__u64 received;
	/* On the way: snd_nxt - snd_una. */
	__u32 unacked;
	__u32 srtt_us;
	__u32 retransmits;
	/* BPF_TCP_*: the state it is in, or leaves. */
	__u8 state;
	/* This side sent the SYN. */
	__u8 active;
	/* Nothing waits to be sent for the first time, a FIN included. */
	__u8 all_sent;
	/* The peer's FIN is among what was taken. */
	__u8 fin_taken;
};

static __always_inline int fin_is_queued(__u8 state)
{
	return state == BPF_TCP_FIN_WAIT1 || state == BPF_TCP_FIN_WAIT2 ||
	       state == BPF_TCP_CLOSING || state == BPF_TCP_LAST_ACK || state == BPF_TCP_TIME_WAIT;
}

/* True once both sides have agreed to talk. */
static __always_inline int is_open(__u8 state)
{
	return state == BPF_TCP_ESTABLISHED || state == BPF_TCP_CLOSE_WAIT || fin_is_queued(state);
}

/* What the app wrote and the network was given, each byte once. */
static __always_inline __u64 bytes_sent(const struct stream_facts *facts)
{
	__u64 control = facts->active + (fin_is_queued(facts->state) && facts->all_sent);
	__u64 all = facts->acked + facts->unacked;

	return all > control ? all - control : 0;
}

/* What is there for the app to read, or was read. */
static __always_inline __u64 bytes_taken(const struct stream_facts *facts)
{
	__u64 control = facts->fin_taken ? 1 : 0;

	return facts->received > control ? facts->received - control : 0;
}

/* Round-trip times are counted by powers of two: bucket i holds what is at most RTT_FIRST << i
 * microseconds, the last one all else. */
#define RTT_BUCKETS 17
#define RTT_FIRST 16

static __always_inline __u32 rtt_bucket(__u32 microseconds)
{
	__u32 bound = RTT_FIRST;

	for (__u32 i = 0; i < RTT_BUCKETS - 1; i++) {
		if (microseconds <= bound)
			return i;
		bound <<= 1;
	}
	return RTT_BUCKETS - 1;
}

enum edge_direction {
	/* Counted on the socket that dialled. */
	EDGE_OUTBOUND,
	EDGE_INBOUND,
};

enum edge_security {
	/* Plain, and nobody vouches for the peer. */
	EDGE_PLAIN,
	/* Plain, both ends attested by the kernel of this node. */
	EDGE_SAME_NODE,
	/* An agent's tunnel. */
	EDGE_TUNNEL,
};

/* Who talks to whom, as what. Bounded by what the mesh knows: an address that is in no table is
 * zero, a port that nobody has shown to be served too. */
struct edge_key {
	/* The namespace whose socket is counted. */
	__u64 cookie;
	/* INBOUND from a pod of this node: its namespace. */
	__u64 peer;
	/* OUTBOUND: the endpoint; INBOUND without `peer`: the client. */
	struct address remote;
	/* What was dialled, where that is not the endpoint itself. */
	struct address service;
	/* Of the server. */
	__u16 port;
	__u16 service_port;
	/* enum edge_direction */
	__u8 direction;
	/* enum edge_security */
	__u8 security;
	__u8 padding[2];
};

/* True for sockets that are counted here. What is captured the agent carries, and counts. */
static __always_inline int is_counted(__u16 kind)
{
	return kind == NOTE_DIRECT || kind == NOTE_ATTESTED || kind == NOTE_PASSED ||
	       kind == NOTE_TUNNEL;
}

/* The edge of a counted socket. `security`: enum edge_security; `known`: the endpoint is in a
 * table; `served`: the connection was opened. */
static __always_inline void edge_of_note(struct edge_key *key, const struct note *note,
					 __u64 cookie, __u8 security, __u8 known, int served)
{
	int by_service;

	key->security = security;
	if (note->kind == NOTE_TUNNEL) {
		key->cookie = note->client;
		key->remote = note->address;
		key->port = note->port;
		return;
	}
	key->cookie = cookie;
	if (note->kind == NOTE_ATTESTED) {
		key->direction = EDGE_INBOUND;
		key->peer = note->client;
	} else {
		if (!known)
			return;
		key->remote = note->chosen;
	}
	by_service =
		note->chosen_port != note->port || !address_equal(&note->chosen, &note->address);
	if (by_service) {
		key->service = note->address;
		key->service_port = note->port;
	}
	if (by_service || served)
		key->port = note->chosen_port;
}
