/* SPDX-License-Identifier: GPL-2.0 */
/* What is noted on a socket, and how a note travels from the connecting socket to the accepted one:
 * filed under the connection's tuple when the SYN is about to leave, claimed when the other side is
 * established. A note lives and dies with its socket; a flow lives for one handshake. */
#pragma once

#include "address.h"

enum note_kind {
	NOTE_NONE,
	/* On the pod's connecting socket: what it dialled. */
	NOTE_DIALLED,
	/* On the agent's accepted socket: what the pod dialled. */
	NOTE_CAPTURED,
	/* On the agent's connecting socket, written by the agent: on whose behalf it connects to
	   the app. */
	NOTE_ON_BEHALF,
	/* On the app's accepted socket: the real client. */
	NOTE_CLIENT,
};

struct note {
	struct address address;
	__u16 port;
	/* enum note_kind */
	__u16 kind;
	__u32 padding;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct note);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_notes SEC(".maps");

/* From the connecting side's point of view. The cookie keeps two pods with the same loopback tuple
 * apart. */
struct flow_key {
	__u64 cookie;
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 padding;
};

struct {
	/* LRU: an entry lives from SYN to established; one that is lost under a flood costs one
	 * refused connection. */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	/* Handshakes under way on one node. */
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct note);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_flows SEC(".maps");
