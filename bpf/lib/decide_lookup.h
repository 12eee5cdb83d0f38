/* SPDX-License-Identifier: GPL-2.0 */
/* Who gets a new connection in an enrolled pod's namespace: facts in, verdict out, no maps and no
 * hook. */
#pragma once

#include "notes.h"
#include "pods.h"
#include "policies.h"

struct lookup_facts {
	struct address remote;
	struct address local;
	__u16 local_port;
	/* enum note_kind of the flow filed for this tuple; NOTE_NONE if there is none */
	__u16 flow;
	/* The remote address is one of the pod's own. */
	__u8 remote_is_own;
	/* enum policy_verdict on a direct flow's client */
	__u8 verdict;
	__u8 padding[2];
	/* All zero if the namespace has no entry. */
	struct pod pod;
};

enum lookup_verdict {
	LOOKUP_PASS,
	/* The agent's own connection to the app. */
	LOOKUP_DELIVER,
	/* From a pod of this node, attested and allowed. */
	LOOKUP_DIRECT,
	/* The kubelet's probe. */
	LOOKUP_PROBE,
	/* The pod talks to itself. */
	LOOKUP_SELF,
	LOOKUP_OUTBOUND,
	LOOKUP_HBONE,
	LOOKUP_PLAINTEXT,
	LOOKUP_REFUSE_PLAINTEXT,
	LOOKUP_REFUSE_DIALLED,
	LOOKUP_REFUSE_UNKNOWN,
	/* From a pod of this node, attested: policy says no, or nothing. */
	LOOKUP_REFUSE_DENIED,
	LOOKUP_REFUSE_NO_VERDICT,
};

static __always_inline int is_listener_port(const struct pod *pod, __u16 port)
{
	return port == pod->listener_ports[LISTENER_OUTBOUND] ||
	       port == pod->listener_ports[LISTENER_HBONE] ||
	       port == pod->listener_ports[LISTENER_PLAINTEXT];
}

/* In this order:
 * 1. A flow filed by sockops says what the connection is: nobody but the agent, enrolled pods and
 * the kubelet file any.
 * 2. A namespace without an entry is refused: the program is there, so it is or was enrolled.
 * 3. Loopback is the pod's own business, except for the agent's listeners. Neither 127/8 nor ::1
 * arrives from outside.
 * 4. Port 15008 is the tunnel, also for a tunnel from this very namespace (a service that chose its
 * own client).
 * 5. The pod's call to its own address. Its address as a source does not arrive from outside over
 * IPv4 (martian), and over IPv6 the answer stays inside, so that no handshake completes.
 * 6. All else is plaintext from outside.
 */
static __always_inline enum lookup_verdict decide_lookup(const struct lookup_facts *facts)
{
	if (facts->flow == NOTE_DIALLED)
		return LOOKUP_OUTBOUND;
	if (facts->flow == NOTE_ON_BEHALF)
		return LOOKUP_DELIVER;
	if (facts->pod.state == 0)
		return LOOKUP_REFUSE_UNKNOWN;
	if (facts->flow == NOTE_KUBELET)
		return LOOKUP_PROBE;
	if (facts->flow == NOTE_DIRECT && facts->pod.state == POD_CAPTURED) {
		if (facts->verdict == VERDICT_ALLOW)
			return LOOKUP_DIRECT;
		return facts->verdict == VERDICT_DENY ? LOOKUP_REFUSE_DENIED
						      : LOOKUP_REFUSE_NO_VERDICT;
	}
	if (address_is_loopback(&facts->local) || address_is_loopback(&facts->remote)) {
		if (is_listener_port(&facts->pod, facts->local_port))
			return LOOKUP_REFUSE_DIALLED;
		return LOOKUP_SELF;
	}
	if (facts->pod.state == POD_PASSING)
		return LOOKUP_PASS;
	if (facts->local_port == HBONE_PORT)
		return LOOKUP_HBONE;
	if (facts->remote_is_own || address_equal(&facts->remote, &facts->local))
		return LOOKUP_SELF;
	return facts->pod.refuse_plaintext ? LOOKUP_REFUSE_PLAINTEXT : LOOKUP_PLAINTEXT;
}
