/* SPDX-License-Identifier: Apache-2.0 */
/* The network configuration that the runtime writes to standard input: this plugin's entry of the
 * conflist, with the list's version and the result of the plugins before. Must not live here:
 * what the environment says (call.h). */
#ifndef AMBIT_CNI_CONFIG_H
#define AMBIT_CNI_CONFIG_H

#include "failure.h"
#include "json.h"

/* Longest configuration. The result of a chain is a few kilobytes. */
#define CONFIG_MAX (1 << 20)
#define VERSION_SIZE 16
/* As sun_path. */
#define SOCKET_SIZE 108
/* As many addresses as the agent takes for a pod. */
#define ADDRESSES_MAX 16
/* The longest text of an address, IPv6 with an IPv4 tail, and a NUL. */
#define ADDRESS_SIZE 46

/* The version of CNI that this was written to, and the first entry of `config_versions`. */
#define CNI_NEWEST "1.1.0"

struct config {
	char version[VERSION_SIZE];
	/* The agent's local API. */
	char socket[SOCKET_SIZE];
	/* Bound of a whole ADD or CHECK. */
	unsigned long timeout_s;
	/* Absent, or an array of strings. */
	struct json exempt;
	/* Absent, or an object: printed as it is after success. */
	struct json previous;
};

struct addresses {
	char text[ADDRESSES_MAX][ADDRESS_SIZE];
	unsigned count;
};

/* Versions of CNI whose calls this plugin serves, newest first, NULL at the end. */
extern const char *const config_versions[];

/* Reads the configuration out of a text, which must stay. 0, or -1 with the failure. The version
 * is set even then, if there is one. */
int config_read(struct config *config, const char *text, size_t length, struct failure *failure);
/* True if the namespace is one of those that the mesh never takes: those of the entry, or
 * ambit-system and kube-system where it names none. */
int config_is_exempt(const struct config *config, const char *namespace);
/* 0 if there is a result of the plugins before, or -1 with the failure. */
int config_require_previous(const struct config *config, struct failure *failure);
/* The pod's addresses, from the result before: those of interfaces inside the container. 0, or -1
 * with the failure. */
int config_addresses(const struct config *config, struct addresses *addresses,
		     struct failure *failure);

#endif
