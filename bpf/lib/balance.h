/* SPDX-License-Identifier: GPL-2.0 */
/* The endpoint of a service for one connection: the client's last one under session affinity, else
 * any. */
#pragma once

#include "services.h"

#define SECOND_NS 1000000000ULL

/* Slot of a service's list, NULL if it was replaced meanwhile. */
static __always_inline struct backend *backend_at(const struct service_key *key, __u32 version,
						  __u32 index)
{
	struct backend_key slot = {.service = *key, .version = version, .index = index};

	return bpf_map_lookup_elem(&ambit_backends, &slot);
}

/* True if an endpoint is still one of the service's. No more slots are looked at than this: one
 * beyond them may be gone or not ready any more, so a session of it begins anew when the list
 * changes. */
#define AFFINITY_CHECKED 64

static __always_inline int is_backend(const struct service_key *key, const struct service *service,
				      const struct backend *wanted)
{
	for (__u32 i = 0; i < AFFINITY_CHECKED; i++) {
		struct backend *backend;

		if (i >= service->count)
			return 0;
		backend = backend_at(key, service->version, i);
		if (backend && backend->port == wanted->port &&
		    address_equal(&backend->address, &wanted->address))
			return 1;
	}
	return 0;
}

/* Writes the choice; 0 if there is none. */
static __always_inline int choose_backend(const struct service_key *key,
					  const struct service *service, __u64 client,
					  struct backend *chosen)
{
	struct affinity_key who = {.service = *key, .client = client};
	struct backend *backend;
	struct affinity *last;
	__u64 now = 0;

	if (service->count == 0)
		return 0;
	if (service->affinity_seconds) {
		now = bpf_ktime_get_ns();
		last = bpf_map_lookup_elem(&ambit_affinity, &who);
		if (last && now - last->used_ns < service->affinity_seconds * SECOND_NS &&
		    (last->version == service->version ||
		     is_backend(key, service, &last->backend))) {
			*chosen = last->backend;
			last->used_ns = now;
			last->version = service->version;
			return 1;
		}
	}
	backend = backend_at(key, service->version, bpf_get_prandom_u32() % service->count);
	if (!backend)
		return 0;
	*chosen = *backend;
	if (service->affinity_seconds) {
		struct affinity fresh = {
			.backend = *backend, .used_ns = now, .version = service->version};

		/* A choice that cannot be kept is one that is made anew. */
		bpf_map_update_elem(&ambit_affinity, &who, &fresh, BPF_ANY);
	}
	return 1;
}
