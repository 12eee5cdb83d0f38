/* SPDX-License-Identifier: GPL-2.0 */
/* What becomes of a pod's socket that is open when it is enrolled, or when policy changes: facts
 * in, verdict out, no maps and no hook. */
#pragma once

#include "notes.h"
#include "policies.h"

/* include/net/tcp_states.h */
enum {
	STATE_ESTABLISHED = 1,
	STATE_FIN_WAIT1 = 4,
	STATE_FIN_WAIT2 = 5,
	STATE_CLOSE_WAIT = 8,
	STATE_LISTEN = 10,
};

struct open_facts {
	struct address local;
	struct address remote;
	__u16 local_port;
	/* enum note_kind; NOTE_NONE if there is no note */
	__u16 note;
	__u8 state;
	/* enum policy_verdict on an attested client */
	__u8 verdict;
	/* The agent has judged it, and it is not allowed. */
	__u8 condemned;
	/* The remote address is one of the pod's own. */
	__u8 remote_is_own;
};

enum open_verdict {
	OPEN_LEAVE,
	/* Its port is one that connections come to. */
	OPEN_LISTENS,
	/* Nobody judged it when it was made: for the agent to say. */
	OPEN_ASK,
	/* Direct, and no longer allowed. */
	OPEN_DESTROY_DIRECT,
	/* Older than the enrolment, and not allowed. */
	OPEN_DESTROY_OLDER,
};

/* Data can still go one way at least. */
static __always_inline int is_carrying(__u8 state)
{
	return state == STATE_ESTABLISHED || state == STATE_FIN_WAIT1 || state == STATE_FIN_WAIT2 ||
	       state == STATE_CLOSE_WAIT;
}

/* Sockets with a note of another kind were decided about when they were made, by somebody who
 * decides again himself: the agent. The pod's talk with itself is its own business. Port 15008 is
 * the agent's. */
static __always_inline enum open_verdict decide_open(const struct open_facts *facts)
{
	if (facts->state == STATE_LISTEN)
		return OPEN_LISTENS;
	if (!is_carrying(facts->state))
		return OPEN_LEAVE;
	if (facts->note == NOTE_ATTESTED)
		return facts->verdict == VERDICT_ALLOW ? OPEN_LEAVE : OPEN_DESTROY_DIRECT;
	if (facts->note != NOTE_NONE || facts->local_port == HBONE_PORT || facts->remote_is_own ||
	    address_is_loopback(&facts->local) || address_is_loopback(&facts->remote) ||
	    address_equal(&facts->local, &facts->remote))
		return OPEN_LEAVE;
	return facts->condemned ? OPEN_DESTROY_OLDER : OPEN_ASK;
}
