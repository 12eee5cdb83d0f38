/* SPDX-License-Identifier: GPL-2.0 */
/* What a packet at an interface is, as far as one protocol (TCP or UDP) is concerned: read from the
 * bytes that the receiver will read, not from what the sender told the kernel about them. */
#pragma once

#include "address.h"

/* linux/if_ether.h */
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86DD
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88A8
#define ETH_HEADER 14
#define VLAN_TAG 4

/* linux/in.h, linux/in6.h */
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ICMP 1
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_AH 51
#define IPPROTO_DSTOPTS 60
#define IPPROTO_ICMPV6 58
#define IPPROTO_MH 135
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Tags and extension headers that are walked; a packet with more of them is unreadable. The kernel
 * itself makes one tag (beside the one in the metadata) and five headers. */
#define VLAN_TAGS 4
#define EXTENSIONS 8

enum packet_kind {
	/* Not the protocol. */
	PACKET_OTHER,
	/* TCP, and its header is read. */
	PACKET_TCP,
	/* A later fragment of the protocol, or of what may be. Without the first it is nothing. */
	PACKET_FRAGMENT,
	/* IP that ends before one can tell what it is, or hides it too deep. */
	PACKET_UNREADABLE,
	/* UDP, and its ports are read. */
	PACKET_UDP,
};

struct packet {
	struct address source;
	struct address destination;
	__u16 destination_port;
	/* enum packet_kind */
	__u8 kind;
	/* TCP_*, of PACKET_TCP */
	__u8 flags;
	/* There is more than headers. */
	__u8 payload;
	__u8 padding[3];
};

/* Where a header begins. */
struct place {
	/* BPF_HDR_START_MAC or BPF_HDR_START_NET */
	__u32 from;
	__u32 offset;
};

static __always_inline int load(struct __sk_buff *skb, struct place at, void *to, __u32 bytes)
{
	return bpf_skb_load_bytes_relative(skb, at.offset, to, bytes, at.from) == 0;
}

/* `rest`: bytes from the TCP header to the end as IP has it; 0 if IP does not tell (jumbo). */
static __always_inline void read_tcp(struct __sk_buff *skb, struct place at, __u32 rest,
				     struct packet *packet)
{
	/* Up to and with the flags; in the first fragment of many there may be less. */
	__u8 header[14];

	if (!load(skb, at, header, sizeof(header))) {
		packet->kind = PACKET_UNREADABLE;
		return;
	}
	packet->kind = PACKET_TCP;
	packet->destination_port = header[2] << 8 | header[3];
	packet->flags = header[13];
	packet->payload = rest == 0 || rest > (header[12] >> 4) * 4u;
}

static __always_inline void read_udp(struct __sk_buff *skb, struct place at, struct packet *packet)
{
	__u8 ports[4];

	if (!load(skb, at, ports, sizeof(ports))) {
		packet->kind = PACKET_UNREADABLE;
		return;
	}
	packet->kind = PACKET_UDP;
	packet->destination_port = ports[2] << 8 | ports[3];
}

static __always_inline void read_v4(struct __sk_buff *skb, struct place at, __u8 wanted,
				    struct packet *packet)
{
	__u32 header[5];
	const __u8 *bytes = (const __u8 *)header;
	__u32 length;
	__u32 total;

	if (!load(skb, at, header, sizeof(header)) || bytes[0] >> 4 != 4) {
		packet->kind = PACKET_UNREADABLE;
		return;
	}
	if (bytes[9] != wanted)
		return;
	length = (bytes[0] & 15) * 4;
	if (length < sizeof(header)) {
		packet->kind = PACKET_UNREADABLE;
		return;
	}
	address_from_v4(&packet->source, header[3]);
	address_from_v4(&packet->destination, header[4]);
	if ((bytes[6] & 0x1f) | bytes[7]) {
		packet->kind = PACKET_FRAGMENT;
		return;
	}
	total = bytes[2] << 8 | bytes[3];
	at.offset += length;
	if (wanted == IPPROTO_TCP)
		read_tcp(skb, at, total > length ? total - length : 0, packet);
	else
		read_udp(skb, at, packet);
}

static __always_inline int is_extension(__u8 protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_AH ||
	       protocol == IPPROTO_DSTOPTS || protocol == IPPROTO_MH || protocol == IPPROTO_HIP ||
	       protocol == IPPROTO_SHIM6;
}

static __always_inline void read_v6(struct __sk_buff *skb, struct place at, __u8 wanted,
				    struct packet *packet)
{
	__u32 header[10];
	const __u8 *bytes = (const __u8 *)header;
	__u32 start = at.offset;
	__u8 protocol;
	__u32 total;

	if (!load(skb, at, header, sizeof(header)) || bytes[0] >> 4 != 6) {
		packet->kind = PACKET_UNREADABLE;
		return;
	}
	address_set_words(&packet->source, header[2], header[3], header[4], header[5]);
	address_set_words(&packet->destination, header[6], header[7], header[8], header[9]);
	total = bytes[4] << 8 | bytes[5];
	if (total > 0)
		total += sizeof(header);
	protocol = bytes[6];
	at.offset += sizeof(header);
	for (int i = 0; i < EXTENSIONS; i++) {
		/* What it is of, its length; of a fragment header, the offset. */
		__u8 extension[4];

		if (!is_extension(protocol))
			break;
		if (!load(skb, at, extension, sizeof(extension))) {
			packet->kind = PACKET_UNREADABLE;
			return;
		}
		if (protocol == IPPROTO_FRAGMENT) {
			if (extension[2] | (extension[3] & 0xf8)) {
				if (extension[0] == wanted || is_extension(extension[0]))
					packet->kind = PACKET_FRAGMENT;
				return;
			}
			at.offset += 8;
		} else if (protocol == IPPROTO_AH) {
			at.offset += (extension[1] + 2) * 4;
		} else {
			at.offset += (extension[1] + 1) * 8;
		}
		protocol = extension[0];
	}
	if (is_extension(protocol))
		packet->kind = PACKET_UNREADABLE;
	else if (protocol == wanted && wanted == IPPROTO_TCP)
		read_tcp(skb, at, total > at.offset - start ? total - (at.offset - start) : 0,
			 packet);
	else if (protocol == wanted)
		read_udp(skb, at, packet);
}

/* An Ethernet frame. A tag of priority (VLAN 0) is no obstacle to a receiver, so none is here. */
static __always_inline void read_frame(struct __sk_buff *skb, __u8 wanted, struct packet *packet)
{
	struct place at = {.from = BPF_HDR_START_MAC, .offset = ETH_HEADER};
	__u16 type = 0;

	for (int i = 0; i <= VLAN_TAGS; i++) {
		struct place before = {.from = at.from, .offset = at.offset - 2};

		/* Shorter than a header: no receiver takes it. */
		if (!load(skb, before, &type, sizeof(type))) {
			packet->kind = PACKET_UNREADABLE;
			return;
		}
		type = bpf_ntohs(type);
		if (type != ETH_P_8021Q && type != ETH_P_8021AD)
			break;
		at.offset += VLAN_TAG;
	}
	if (type == ETH_P_IP)
		read_v4(skb, at, wanted, packet);
	else if (type == ETH_P_IPV6)
		read_v6(skb, at, wanted, packet);
	else if (type == ETH_P_8021Q || type == ETH_P_8021AD)
		packet->kind = PACKET_UNREADABLE;
}

/* Of an interface of another kind (a tunnel, say): IP by its version, wherever the kernel has the
 * network header. What is no IP there (ARP of InfiniBand) begins with neither 4 nor 6. */
static __always_inline void read_bare(struct __sk_buff *skb, __u8 wanted, struct packet *packet)
{
	struct place at = {.from = BPF_HDR_START_NET};
	__u8 first;

	if (!load(skb, at, &first, sizeof(first)))
		packet->kind = PACKET_UNREADABLE;
	else if (first >> 4 == 4)
		read_v4(skb, at, wanted, packet);
	else if (first >> 4 == 6)
		read_v6(skb, at, wanted, packet);
}
