/* SPDX-License-Identifier: GPL-2.0 */
/* What is noted on a socket: what it dialled or on whose behalf it connects, and what was decided
 * about it. A note lives and dies with its socket. How it gets to the socket at the other end:
 * flows.h. */
#pragma once

#include "address.h"

enum note_kind {
	NOTE_NONE,
	/* On the pod's connecting socket: it is captured; what it dialled. */
	NOTE_DIALLED,
	/* On the agent's accepted socket: what the pod dialled. */
	NOTE_CAPTURED,
	/* On the agent's connecting socket, written by the agent: on whose behalf it connects to
	   the app. */
	NOTE_ON_BEHALF,
	/* On the app's accepted socket: the real client. */
	NOTE_CLIENT,
	/* On the pod's connecting socket: it goes to a pod of this node itself, whose sk_lookup
	   judges it. */
	NOTE_DIRECT,
	/* On the app's accepted socket of a direct connection. */
	NOTE_ATTESTED,
	/* On the pod's connecting socket: it goes to something that is not in the mesh. */
	NOTE_PASSED,
	/* Filed for the kubelet's connections; on the app's accepted socket of one. */
	NOTE_KUBELET,
	/* On a connecting socket of the agent's own, written by the agent: it is captured as a
	   pod's would be, to prove that a pod's is. */
	NOTE_CANARY,
	/* On the agent's connecting socket of a tunnel, written by the agent: `client` is the pod
	   it is for, `address` and `port` where it leads. */
	NOTE_TUNNEL,
};

/* Why a connection was refused by the kernel's half. Append only. */
enum refusal {
	REFUSAL_NONE,
	/* A policy says so. */
	REFUSAL_POLICY,
	/* The table of policies has no answer: it was replaced meanwhile. */
	REFUSAL_NO_VERDICT,
	/* Plaintext from outside, where only the mesh is let in. */
	REFUSAL_PLAINTEXT,
	REFUSALS,
};

struct note {
	/* What was dialled; ON_BEHALF, CLIENT: the client. */
	struct address address;
	/* The endpoint chosen for it; DIALLED, CAPTURED: as advice to the agent. */
	struct address chosen;
	/* DIRECT, ATTESTED: cookie of the client's namespace. */
	__u64 client;
	__u16 port;
	/* enum note_kind */
	__u16 kind;
	/* 0: none was chosen */
	__u16 chosen_port;
	/* enum refusal; on a flow: why the other end refused it */
	__u16 refusal;
};

/* What counting needs to remember of a socket; the numbers themselves are the kernel's. */
struct tally {
	/* bpf_ktime_get_ns: dialled. */
	__u64 opened_ns;
	/* Its round-trip time was last taken; 0: nobody has looked yet. */
	__u64 sampled_ns;
	/* Of the socket's own namespace. */
	__u64 cookie;
	/* It is to be counted when it ends. */
	__u8 running;
	/* enum edge_security */
	__u8 security;
	/* The endpoint is in a table. */
	__u8 known;
	__u8 padding[5];
};

/* One allocation for each socket of an enrolled pod. */
struct socket {
	struct note note;
	struct tally tally;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_notes SEC(".maps");
