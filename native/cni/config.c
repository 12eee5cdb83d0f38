// SPDX-License-Identifier: Apache-2.0
/* See config.h. */
#include "config.h"

#include <string.h>

#include "call.h"

/* A busy node captures many pods at one time; giving up early only makes their sandboxes anew. */
#define TIMEOUT_DEFAULT_S 30
/* Under the two minutes a kubelet gives its runtime. */
#define TIMEOUT_MAX_S 60

const char *const config_versions[] = {CNI_NEWEST, "1.0.0", "0.4.0", "0.3.1", "0.3.0", NULL};
static const char *const default_exempt[] = {"ambit-system", "kube-system"};

static int read_version(struct config *config, struct json root, struct failure *failure)
{
	struct json value;

	if (json_member(root, "cniVersion", &value) != 1 ||
	    json_string(value, config->version, sizeof(config->version)) < 0) {
		config->version[0] = 0;
		return fail(failure, CNI_INCOMPATIBLE,
			    "the configuration has no cniVersion; 0.3.0 is the oldest that can "
			    "chain plugins");
	}
	for (int i = 0; config_versions[i]; i++)
		if (strcmp(config->version, config_versions[i]) == 0)
			return 0;
	return fail(failure, CNI_INCOMPATIBLE, "cniVersion %s is none of 0.3.0 to " CNI_NEWEST,
		    config->version);
}

static int read_exempt(struct config *config, struct json root, struct failure *failure)
{
	struct json_walk walk;
	struct json key, value;
	char name[NAME_SIZE];
	int found = json_member(root, "exemptNamespaces", &config->exempt);

	if (found == 0)
		return 0;
	walk = json_enter(config->exempt);
	if (found < 0 || walk.open != '[')
		return fail(failure, CNI_BAD_CONFIG, "exemptNamespaces must be one list of names");
	while (json_next(&walk, &key, &value))
		if (json_string(value, name, sizeof(name)) <= 0)
			return fail(failure, CNI_BAD_CONFIG,
				    "exemptNamespaces has an entry that is no name");
	return 0;
}

static int read_entry(struct config *config, struct json root, struct failure *failure)
{
	struct json value;
	int found = json_member(root, "socket", &value);

	if (found != 1 || json_string(value, config->socket, sizeof(config->socket)) < 0 ||
	    config->socket[0] != '/')
		return fail(failure, CNI_BAD_CONFIG,
			    "socket must be the absolute path of the agent's socket, at most %d "
			    "bytes",
			    SOCKET_SIZE - 1);
	config->timeout_s = TIMEOUT_DEFAULT_S;
	found = json_member(root, "timeoutSeconds", &value);
	if (found && (found < 0 || json_unsigned(value, TIMEOUT_MAX_S, &config->timeout_s) < 0 ||
		      config->timeout_s == 0))
		return fail(failure, CNI_BAD_CONFIG, "timeoutSeconds must be a number from 1 to %d",
			    TIMEOUT_MAX_S);
	found = json_member(root, "prevResult", &config->previous);
	if (found && (found < 0 || !json_is(config->previous, '{')))
		return fail(failure, CNI_BAD_CONFIG, "prevResult must be one object");
	return read_exempt(config, root, failure);
}

int config_read(struct config *config, const char *text, size_t length, struct failure *failure)
{
	struct json root;
	size_t wrong;

	memset(config, 0, sizeof(*config));
	if (json_check(text, length, &root, &wrong) < 0)
		return fail(failure, CNI_UNDECODABLE,
			    "the network configuration is no JSON at byte %zu of %zu", wrong,
			    length);
	if (!json_is(root, '{'))
		return fail(failure, CNI_UNDECODABLE, "the network configuration is no object");
	if (read_version(config, root, failure) < 0)
		return -1;
	return read_entry(config, root, failure);
}

int config_is_exempt(const struct config *config, const char *namespace)
{
	struct json_walk walk = json_enter(config->exempt);
	struct json key, value;
	char name[NAME_SIZE];

	if (config->exempt.length == 0)
		return strcmp(namespace, default_exempt[0]) == 0 ||
		       strcmp(namespace, default_exempt[1]) == 0;
	while (json_next(&walk, &key, &value))
		if (json_string(value, name, sizeof(name)) > 0 && strcmp(name, namespace) == 0)
			return 1;
	return 0;
}

/* False if the entry of `ips` names an interface that is not inside the container. */
static int is_inside(struct json interfaces, struct json entry)
{
	struct json_walk walk = json_enter(interfaces);
	struct json key, value, sandbox;
	unsigned long index;

	if (json_member(entry, "interface", &value) != 1 ||
	    json_unsigned(value, 1 << 16, &index) < 0)
		return 1;
	while (json_next(&walk, &key, &value))
		if (index-- == 0)
			return json_member(value, "sandbox", &sandbox) == 1 && sandbox.length > 2;
	return 1;
}

/* `10.1.2.3/24` without what is behind the slash. */
static int read_address(struct json entry, char out[ADDRESS_SIZE])
{
	struct json value;
	char text[ADDRESS_SIZE + 4];
	size_t length;

	if (json_member(entry, "address", &value) != 1 ||
	    json_string(value, text, sizeof(text)) <= 0)
		return -1;
	length = strcspn(text, "/");
	if (length == 0 || length >= ADDRESS_SIZE ||
	    strspn(text, "0123456789abcdefABCDEF:.") < length)
		return -1;
	memcpy(out, text, length);
	out[length] = 0;
	return 0;
}

int config_require_previous(const struct config *config, struct failure *failure)
{
	if (config->previous.length > 0)
		return 0;
	return fail(failure, CNI_BAD_CONFIG,
		    "there is no prevResult: this plugin must be chained behind the one that makes "
		    "the interface");
}

int config_addresses(const struct config *config, struct addresses *addresses,
		     struct failure *failure)
{
	struct json ips = {0}, interfaces = {0}, key, value;
	struct json_walk walk;

	addresses->count = 0;
	if (json_member(config->previous, "interfaces", &interfaces) < 0 ||
	    json_member(config->previous, "ips", &ips) < 0)
		return fail(failure, CNI_BAD_CONFIG, "prevResult has a member twice");
	walk = json_enter(ips);
	while (json_next(&walk, &key, &value)) {
		if (!is_inside(interfaces, value))
			continue;
		if (addresses->count == ADDRESSES_MAX)
			return fail(failure, CNI_BAD_CONFIG,
				    "prevResult has more than %d addresses for the pod",
				    ADDRESSES_MAX);
		if (read_address(value, addresses->text[addresses->count]) < 0)
			return fail(failure, CNI_BAD_CONFIG,
				    "prevResult has an entry in ips without an address");
		addresses->count++;
	}
	if (addresses->count == 0)
		return fail(failure, CNI_BAD_CONFIG,
			    "prevResult has no address of the pod: nothing could be told about it");
	return 0;
}
