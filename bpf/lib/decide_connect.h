/* SPDX-License-Identifier: GPL-2.0 */
/* What becomes of a connect() in an enrolled pod: facts in, verdict out, no maps and no hook. */
#pragma once

#include "pods.h"

struct connect_facts {
	struct address destination;
	__u16 port;
	__u8 is_tcp;
	__u8 is_agent;
	/* The destination is one of the pod's own addresses. */
	__u8 is_own;
	/* enum pod_state, 0 if the namespace is not enrolled */
	__u8 pod_state;
	/* The agent's own socket, which is to go a pod's way. */
	__u8 is_canary;
	__u8 padding;
};

enum connect_verdict {
	/* Not ours. */
	CONNECT_PASS,
	CONNECT_PASS_AGENT,
	CONNECT_PASS_LOCAL,
	CONNECT_CAPTURE,
	CONNECT_REFUSE_LINK_LOCAL,
};

static __always_inline enum connect_verdict decide_connect(const struct connect_facts *facts)
{
	if (!facts->is_tcp || facts->pod_state == 0)
		return CONNECT_PASS;
	if (facts->is_agent && !facts->is_canary)
		return CONNECT_PASS_AGENT;
	if (facts->pod_state == POD_PASSING)
		return CONNECT_PASS;
	/* Within the pod nothing is to be protected from anybody. */
	if (address_is_loopback(&facts->destination) ||
	    address_is_unspecified(&facts->destination) || facts->is_own)
		return CONNECT_PASS_LOCAL;
	/* No mesh address is link-local and the agent could not carry the scope. Yet a pod of the
	 * mesh may be behind it. */
	if (address_is_link_local_v6(&facts->destination))
		return CONNECT_REFUSE_LINK_LOCAL;
	return CONNECT_CAPTURE;
}
