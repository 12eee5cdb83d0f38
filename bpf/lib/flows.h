/* SPDX-License-Identifier: GPL-2.0 */
/* How a note travels from the connecting socket to the accepted one: filed under the connection's
 * tuple when the SYN is about to leave, read by the sk_lookup of the other end, claimed when that
 * side is established. A flow lives for one handshake. */
#pragma once

#include "notes.h"

/* From the connecting side's point of view. */
struct flow_key {
	/* Of the namespace for a loopback destination: two pods may have the same tuple there. 0
	   for all others: a pod's address is one pod's on a node, and both ends must find the
	   entry. */
	__u64 cookie;
	struct address source;
	struct address destination;
	__u16 source_port;
	__u16 destination_port;
	__u32 padding;
};

struct {
	/* LRU: an entry lives from SYN to established; one that is lost under a flood costs one
	 * connection, which is then judged as plaintext or refused. */
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	/* Handshakes under way on one node. */
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct note);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_flows SEC(".maps");

static __always_inline __u64 flow_cookie(const struct address *destination, __u64 cookie)
{
	return address_is_loopback(destination) ? cookie : 0;
}
