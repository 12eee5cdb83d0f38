/* SPDX-License-Identifier: GPL-2.0 */
/* Addresses: always 16 bytes, IPv4 mapped (::ffff:a.b.c.d), ports in host order. Hooks convert at
 * their edge, so that one key means one connection whatever socket family either side used. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

/* Aligned so that the compiler copies and compares it in 64-bit words. */
struct address {
	__u8 bytes[16];
} __attribute__((aligned(8)));

/* The bytes seen as words, in network order. */
typedef __u32 __attribute__((may_alias)) address_word;

static __always_inline __u32 address_word_at(const struct address *address, int index)
{
	return ((const address_word *)address->bytes)[index];
}

static __always_inline void address_set_words(struct address *address, __u32 w0, __u32 w1, __u32 w2,
					      __u32 w3)
{
	address_word *words = (address_word *)address->bytes;

	words[0] = w0;
	words[1] = w1;
	words[2] = w2;
	words[3] = w3;
}

static __always_inline void address_from_v4(struct address *address, __be32 v4)
{
	address_set_words(address, 0, 0, bpf_htonl(0xffff), v4);
}

/* A read of a context field that the compiler must not move or merge: it would join reads of two
 * fields into one through a computed pointer, which the verifier refuses. */
#define READ(field) (*(volatile __typeof__(field) *)&(field))

/* From the two forms a context has; both are read, see READ. */
static __always_inline void address_of_family(struct address *address, __u32 family, __be32 v4,
					      __u32 w0, __u32 w1, __u32 w2, __u32 w3)
{
	if (family == AF_INET)
		address_from_v4(address, v4);
	else
		address_set_words(address, w0, w1, w2, w3);
}

static __always_inline int address_is_v4(const struct address *address)
{
	return address_word_at(address, 0) == 0 && address_word_at(address, 1) == 0 &&
	       address_word_at(address, 2) == bpf_htonl(0xffff);
}

static __always_inline int address_equal(const struct address *a, const struct address *b)
{
	return address_word_at(a, 0) == address_word_at(b, 0) &&
	       address_word_at(a, 1) == address_word_at(b, 1) &&
	       address_word_at(a, 2) == address_word_at(b, 2) &&
	       address_word_at(a, 3) == address_word_at(b, 3);
}

/* 127.0.0.0/8, ::1. */
static __always_inline int address_is_loopback(const struct address *address)
{
	__u32 last = bpf_ntohl(address_word_at(address, 3));

	if (address_is_v4(address))
		return last >> 24 == 127;
	return address_word_at(address, 0) == 0 && address_word_at(address, 1) == 0 &&
	       address_word_at(address, 2) == 0 && last == 1;
}

/* 0.0.0.0, ::, which connect() takes for "this host". */
static __always_inline int address_is_unspecified(const struct address *address)
{
	return address_word_at(address, 3) == 0 &&
	       (address_is_v4(address) ||
		(address_word_at(address, 0) == 0 && address_word_at(address, 1) == 0 &&
		 address_word_at(address, 2) == 0));
}

/* fe80::/10 */
static __always_inline int address_is_link_local_v6(const struct address *address)
{
	return (bpf_ntohl(address_word_at(address, 0)) & 0xffc00000) == 0xfe800000;
}

/* Where captured connections are sent: loopback of the pod's own namespace, at a port that nobody
 * listens on. The port means nothing: sk_lookup picks the agent's listener by flow. Without a flow
 * the pod gets the refusal it would get without us, and should sk_lookup be gone, a captured
 * connection is refused instead of landing at some program. */
#define CAPTURE_PORT 1

static __always_inline void capture_address(struct address *address, int v4)
{
	if (v4)
		address_from_v4(address, bpf_htonl(0x7f000001));
	else
		address_set_words(address, 0, 0, 0, bpf_htonl(1));
}

static __always_inline int is_capture_address(const struct address *address, __u16 port)
{
	return port == CAPTURE_PORT && address_is_loopback(address);
}
