/* SPDX-License-Identifier: GPL-2.0 */
/* Whether a packet may leave an enrolled pod's namespace: facts in, verdict out, no maps and no
 * hook. */
#pragma once

#include "notes.h"
#include "packet.h"
#include "pods.h"

/* Whose the packet is. */
enum guard_owner {
	/* Of no socket: an answer of the kernel's own, or passing through the namespace. */
	OWNER_NONE,
	/* Of a TCP socket. */
	OWNER_TCP,
	/* Of a connection without a whole socket, not yet or no longer (request, time wait): the
	 * kernel answers for it. */
	OWNER_MINI,
	/* Of the kernel's own socket for answers, or of a raw socket for TCP made in the root
	 * cgroup, which looks the same. No pod's program is in there. */
	OWNER_KERNEL,
	/* Of any other socket: raw, packet, XDP. Whoever has one writes TCP by hand. */
	OWNER_OTHER,
};

struct guard_facts {
	struct packet packet;
	/* The socket's; all zero where there is none. */
	struct note note;
	/* enum guard_owner */
	__u8 owner;
	/* The socket was made by an agent. */
	__u8 is_agent;
	/* It came in by an interface. */
	__u8 is_forwarded;
	/* The source address is one of the pod's. */
	__u8 source_is_own;
	/* enum pod_state, 0 if the namespace has no entry */
	__u8 pod_state;
	__u8 padding[3];
	/* Cookie of the guarded namespace. */
	__u64 cookie;
};

enum guard_verdict {
	GUARD_PASS,
	/* A new connection of a socket that nobody decided about. */
	GUARD_DROP_SYN,
	/* … of one that was to go elsewhere, or with another's source address. */
	GUARD_DROP_PEER,
	/* TCP that no TCP socket made. */
	GUARD_DROP_HANDMADE,
	/* TCP that comes through the namespace, from another behind it. */
	GUARD_DROP_FORWARDED,
	/* TCP of no socket that is no answer of the kernel's. */
	GUARD_DROP_UNOWNED,
	/* Cannot be told from TCP. */
	GUARD_DROP_UNREADABLE,
	/* The namespace has the program but no entry. */
	GUARD_DROP_UNKNOWN,
	/* From a loopback address, which nobody outside can answer. */
	GUARD_DROP_LOOPBACK,
};

/* Opens a connection; the answer to an opening does not. */
static __always_inline int is_opening(const struct packet *packet)
{
	return (packet->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A refusal, or an acknowledgement that carries nothing: what the kernel says where it has no whole
 * socket. */
static __always_inline int is_bare_answer(const struct packet *packet)
{
	if (packet->kind != PACKET_TCP || packet->payload)
		return 0;
	return (packet->flags & TCP_RST) || (packet->flags & (TCP_ACK | TCP_FIN)) == TCP_ACK;
}

/* A new connection of a pod's own socket, not of an agent's. */
static __always_inline enum guard_verdict decide_opening(const struct guard_facts *facts)
{
	const struct note *note = &facts->note;

	if (note->kind != NOTE_DIRECT && note->kind != NOTE_PASSED)
		return GUARD_DROP_SYN;
	/* connect(AF_UNSPEC) leaves the note behind, and a device can be moved to another
	 * namespace. */
	if (note->client != facts->cookie || note->chosen_port != facts->packet.destination_port ||
	    !address_equal(&note->chosen, &facts->packet.destination))
		return GUARD_DROP_PEER;
	/* To a pod of the mesh under another's address: not attested, so not sent. */
	if (note->kind == NOTE_DIRECT && !facts->source_is_own)
		return GUARD_DROP_PEER;
	return GUARD_PASS;
}

/* In this order:
 * 1. What is not TCP is none of the guard's business.
 * 2. A namespace without an entry is or was enrolled: no TCP. One on its way in or out: all.
 * 3. What cannot be read may be anything.
 * 4. A captured socket that was bound to the address of another: the agent's answer to it, of ::1,
 * would leave the pod.
 * 5. A TCP socket sends what belongs to its connection. So what is to be judged is the opening: an
 * agent's, or one that connect() decided about and that goes where it was decided. A connection
 * without an opening is from before the pod was enrolled, or was accepted: sk_lookup judged it. Of
 * a fragmented opening only the first fragment has flags; the others are nothing without it.
 * 6. The kernel's answers where there is no whole socket: SYN-ACK, RST, ACK, none with data.
 * 7. Nothing else makes TCP: not what comes through the pod from behind it, nor raw and packet
 * sockets. */
static __always_inline enum guard_verdict decide_guard(const struct guard_facts *facts)
{
	const struct packet *packet = &facts->packet;

	if (packet->kind == PACKET_OTHER)
		return GUARD_PASS;
	if (facts->pod_state == 0)
		return GUARD_DROP_UNKNOWN;
	if (facts->pod_state == POD_PASSING)
		return GUARD_PASS;
	if (packet->kind == PACKET_UNREADABLE)
		return GUARD_DROP_UNREADABLE;
	if (address_is_loopback(&packet->source))
		return GUARD_DROP_LOOPBACK;
	switch (facts->owner) {
	case OWNER_TCP:
		if (packet->kind == PACKET_FRAGMENT || !is_opening(packet) || facts->is_agent)
			return GUARD_PASS;
		return decide_opening(facts);
	case OWNER_MINI:
		return GUARD_PASS;
	case OWNER_KERNEL:
		return is_bare_answer(packet) && !(packet->flags & TCP_SYN) ? GUARD_PASS
									    : GUARD_DROP_HANDMADE;
	case OWNER_NONE:
		if (facts->is_forwarded)
			return GUARD_DROP_FORWARDED;
		return is_bare_answer(packet) ? GUARD_PASS : GUARD_DROP_UNOWNED;
	}
	return GUARD_DROP_HANDMADE;
}
