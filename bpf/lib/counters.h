/* SPDX-License-Identifier: GPL-2.0 */
/* One counter per outcome and per reason of a refusal. A refusal without a counter is a bug. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* Names in user space are made from these (agent/node/redirect/counters.ts). Append only: the
 * map outlives the agent. */
enum counter {
	/* connect: outbound TCP of an enrolled pod, sent to the agent */
	COUNT_REDIRECTED,
	/* connect: loopback, own address: left alone */
	COUNT_PASSED_LOCAL,
	/* connect: the agent's own socket in a pod's namespace */
	COUNT_PASSED_AGENT,
	/* sk_lookup: handed to the outbound listener */
	COUNT_CAPTURED,
	/* sk_lookup: handed to the listener for port 15008 */
	COUNT_TUNNELLED,
	/* sk_lookup: handed to the listener that judges plaintext */
	COUNT_JUDGED,
	/* sk_lookup: the agent's own connection, to the app */
	COUNT_DELIVERED,
	/* sk_lookup: the pod talks to itself */
	COUNT_SELF,
	/* connect: no memory to note the destination */
	COUNT_DROP_NO_MEMORY,
	/* sockops: the flow could not be filed, sk_lookup will not find it */
	COUNT_DROP_FLOW_NOT_FILED,
	/* sockops: no memory to note the destination on the accepted socket; the agent refuses it
	 */
	COUNT_DROP_NOTE_LOST,
	/* sk_lookup: no listener, the agent is away */
	COUNT_DROP_NO_OUTBOUND_LISTENER,
	COUNT_DROP_NO_HBONE_LISTENER,
	COUNT_DROP_NO_PLAINTEXT_LISTENER,
	/* sk_lookup: plaintext is refused here (STRICT) */
	COUNT_DROP_PLAINTEXT_REFUSED,
	/* sk_lookup: somebody in the pod dialled one of the agent's listeners */
	COUNT_DROP_LISTENER_DIALLED,
	/* sk_lookup: the namespace has the program but no entry in pods */
	COUNT_DROP_UNKNOWN_NAMESPACE,
	/* sk_lookup: the kernel refused the listener */
	COUNT_DROP_ASSIGN_FAILED,
	/* connect: the socket is bound to a device and may not be unbound, so it cannot reach the
	   agent */
	COUNT_DROP_BOUND_TO_DEVICE,
	/* connect: to a pod of this node itself */
	COUNT_DIRECT,
	/* connect: to something outside the mesh */
	COUNT_PASSED_OUTSIDE,
	/* sk_lookup: from a pod of this node, attested and allowed */
	COUNT_ATTESTED,
	/* sk_lookup: the kubelet's probe */
	COUNT_PASSED_PROBE,
	/* sk_lookup: from a pod of this node, attested and denied by policy */
	COUNT_DROP_POLICY_DENIED,
	/* sk_lookup: from a pod of this node, attested, but its verdict is gone: policy was
	   replaced meanwhile */
	COUNT_DROP_NO_VERDICT,
	/* sockops: a pod dialled with a source address that is not its own; it is judged as
	   plaintext */
	COUNT_UNATTESTED,
	/* connect: the endpoint of a service was missing, the agent chooses */
	COUNT_MISSED_BACKEND,
	/* guard: a new connection of a socket that connect did not decide about (a program of
	   another cgroup) */
	COUNT_DROP_GUARD_SYN,
	/* guard: … that connect sent elsewhere, or to a pod of the mesh under another's address */
	COUNT_DROP_GUARD_PEER,
	/* guard: TCP of a raw or packet socket */
	COUNT_DROP_GUARD_HANDMADE,
	/* guard: TCP that came through the pod, from a namespace behind it */
	COUNT_DROP_GUARD_FORWARDED,
	/* guard: TCP of no socket that is no answer of the kernel's */
	COUNT_DROP_GUARD_UNOWNED,
	/* guard: IP of which cannot be told that it is no TCP */
	COUNT_DROP_GUARD_UNREADABLE,
	/* guard: TCP where the namespace has the program but no entry in pods */
	COUNT_DROP_GUARD_UNKNOWN,
	/* connect: the agent's own, to prove that a pod's way is in order */
	COUNT_CANARY,
	/* sockops, sk_lookup: no room for another edge, it is counted on the one for all others */
	COUNT_EDGES_FULL,
	/* sockops: an ended connection is not in the flow log, which has had its share of this
	   second or is full */
	COUNT_FLOWS_NOT_LOGGED,
	/* setsockopt: a socket that would send past the guard */
	COUNT_DROP_DIRECT_SENDER,
	/* sk_lookup: UDP from outside to a port where plaintext is refused (STRICT) */
	COUNT_DROP_DATAGRAM_REFUSED,
	/* judge: a direct connection that policy allows no longer was ended */
	COUNT_DROP_REVOKED,
	/* judge: plaintext from before the pod was enrolled, which policy refuses, was ended */
	COUNT_DROP_OLDER,
	/* connect: an IPv6 link-local destination, which the mesh cannot carry */
	COUNT_DROP_LINK_LOCAL,
	/* guard: TCP from a loopback address: the agent's answer to a captured socket that was
	   bound to the address of another */
	COUNT_DROP_GUARD_LOOPBACK,
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	/* Room for counters of later versions: a pinned map cannot grow. */
	__uint(max_entries, 128);
	/* The enum itself, so that its names are in the BTF. */
	__type(key, enum counter);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} ambit_counters SEC(".maps");

static __always_inline void count(enum counter counter)
{
	__u32 key = counter;
	__u64 *value = bpf_map_lookup_elem(&ambit_counters, &key);

	if (value)
		*value += 1;
}
