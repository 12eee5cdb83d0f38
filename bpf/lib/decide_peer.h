/* SPDX-License-Identifier: GPL-2.0 */
/* What getpeername() and accept() answer, and whether a connecting socket's note is filed: no maps
 * and no hook. */
#pragma once

#include "notes.h"

/* The socket's true peer as the kernel has it, and the note on the socket. */
struct peer_facts {
	struct address peer;
	__u16 port;
	/* Family of the socket: an AF_INET one cannot show an IPv6 peer. */
	__u16 family;
	/* The socket's own address is one of its pod's. */
	__u8 source_is_own;
	__u8 padding[3];
	struct note note;
};

static __always_inline int goes_to_chosen(const struct peer_facts *facts)
{
	return facts->note.chosen_port == facts->port &&
	       address_equal(&facts->note.chosen, &facts->peer);
}

/* True if the note's address is the answer. */
static __always_inline int answer_is_note(const struct peer_facts *facts)
{
	if (facts->family == AF_INET && !address_is_v4(&facts->note.address))
		return 0;
	if (facts->note.kind == NOTE_CLIENT)
		return 1;
	/* connect(AF_UNSPEC) runs no hook and leaves the note behind: it is believed only while the
	 * socket is where the note sent it. */
	if (facts->note.kind == NOTE_DIALLED)
		return is_capture_address(&facts->peer, facts->port);
	return (facts->note.kind == NOTE_DIRECT || facts->note.kind == NOTE_PASSED) &&
	       goes_to_chosen(facts);
}

/* True if the connection that is about to be made carries its note to the other side. */
static __always_inline int note_travels(const struct peer_facts *facts)
{
	if (facts->note.kind == NOTE_ON_BEHALF)
		return 1;
	if (facts->note.kind == NOTE_DIALLED || facts->note.kind == NOTE_CANARY)
		return is_capture_address(&facts->peer, facts->port);
	/* Nobody is attested under an address of another. */
	return facts->note.kind == NOTE_DIRECT && goes_to_chosen(facts) && facts->source_is_own;
}

/* What a note is filed as: from here on nothing tells a canary from a pod's connection. */
static __always_inline __u16 kind_when_filed(__u16 kind)
{
	return kind == NOTE_CANARY ? NOTE_DIALLED : kind;
}

/* What a note becomes on the accepted socket. */
static __always_inline __u16 kind_when_accepted(__u16 kind)
{
	if (kind == NOTE_DIRECT)
		return NOTE_ATTESTED;
	if (kind == NOTE_KUBELET)
		return NOTE_KUBELET;
	return kind == NOTE_DIALLED ? NOTE_CAPTURED : NOTE_CLIENT;
}
