/* SPDX-License-Identifier: GPL-2.0 */
/* Which datagrams that reach a pod are refused: facts in, verdict out, no maps and no hook. */
#pragma once

#include "policies.h"
#include "pods.h"

struct datagram_facts {
	struct address remote;
	struct address local;
	/* The remote address is one of the pod's own. */
	__u8 remote_is_own;
	/* enum policy_verdict of the pod's table on UDP to the port */
	__u8 verdict;
	/* enum pod_state, 0 if the namespace has no entry */
	__u8 pod_state;
	/* The address it is for is one of the pod's own. */
	__u8 local_is_own;
	__u8 padding[4];
};

/* Where no connected socket takes it. The mesh carries no UDP, so what reaches an enrolled port is
 * plain. Refused is a port that the table names; any other passes, as the answers do that the pod
 * itself asked for. */
static __always_inline int refuses_datagram(const struct datagram_facts *facts)
{
	if (facts->verdict != VERDICT_DENY || facts->pod_state == POD_PASSING)
		return 0;
	/* The pod talks to itself. */
	return !facts->remote_is_own && !address_is_loopback(&facts->remote) &&
	       !address_is_loopback(&facts->local);
}

/* To a group or to all: the kernel hands it to every socket of the port and asks sk_lookup nothing.
 */
static __always_inline int refuses_group_datagram(const struct datagram_facts *facts)
{
	return facts->verdict == VERDICT_DENY && facts->pod_state != POD_PASSING &&
	       !facts->local_is_own;
}
