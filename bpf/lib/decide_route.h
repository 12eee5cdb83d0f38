/* SPDX-License-Identifier: GPL-2.0 */
/* Where a connection of an enrolled pod goes once its endpoint is known: facts in, verdict out, no
 * maps and no hook. */
#pragma once

#include "notes.h"
#include "pods.h"
#include "policies.h"
#include "workloads.h"

struct route_facts {
	/* Port of the endpoint. */
	__u16 port;
	/* The address is in ambit_workloads. */
	__u8 known;
	/* enum workload_class */
	__u8 class;
	/* enum policy_verdict of the endpoint's table */
	__u8 verdict;
	/* The endpoint was chosen for a service. */
	__u8 chosen;
	/* SETTINGS_PASS_UNKNOWN */
	__u8 pass_unknown;
	/* The socket cannot reach the endpoint: it has the other address family. */
	__u8 other_family;
};

enum route {
	/* To the agent of this node. */
	ROUTE_AGENT,
	/* To a pod of this node itself. */
	ROUTE_DIRECT,
	/* To something that is not in the mesh. */
	ROUTE_PASS,
};

/* Only what is known to be right leaves the agent out. A denied connection goes direct too: the
 * server's sk_lookup refuses it, as it would any other. */
static __always_inline enum route decide_route(const struct route_facts *facts)
{
	if (facts->other_family)
		return ROUTE_AGENT;
	if (!facts->known)
		return facts->pass_unknown && !facts->chosen ? ROUTE_PASS : ROUTE_AGENT;
	if (facts->class == WORKLOAD_PLAIN)
		return ROUTE_PASS;
	if (facts->class != WORKLOAD_DIRECT || facts->port == HBONE_PORT)
		return ROUTE_AGENT;
	return facts->verdict == VERDICT_ALLOW || facts->verdict == VERDICT_DENY ? ROUTE_DIRECT
										 : ROUTE_AGENT;
}

static __always_inline enum note_kind note_of_route(enum route route)
{
	if (route == ROUTE_AGENT)
		return NOTE_DIALLED;
	return route == ROUTE_DIRECT ? NOTE_DIRECT : NOTE_PASSED;
}
