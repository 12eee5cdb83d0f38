// SPDX-License-Identifier: Apache-2.0
/* See call.h. */
#include "call.h"

#include <stdlib.h>
#include <string.h>

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

enum command call_command(void)
{
	static const char *const names[] = {
		[COMMAND_ADD] = "ADD", [COMMAND_CHECK] = "CHECK",
		[COMMAND_DEL] = "DEL", [COMMAND_STATUS] = "STATUS",
		[COMMAND_GC] = "GC",   [COMMAND_VERSION] = "VERSION",
	};
	const char *given = getenv("CNI_COMMAND");

	for (int i = COMMAND_ADD; given && i <= COMMAND_VERSION; i++)
		if (strcmp(given, names[i]) == 0)
			return (enum command)i;
	return COMMAND_NONE;
}

/* Copies text that begins with a letter or digit, is of these characters and fits. */
static int copy(char *out, size_t size, const char *text, size_t length, const char *characters)
{
	if (length == 0 || length >= size || strspn(text, characters) < length ||
	    !strchr(LOWER UPPER DIGITS, text[0]))
		return -1;
	memcpy(out, text, length);
	out[length] = 0;
	return 0;
}

/* `Linux restrictions on interface names`, and those of the specification. */
static int is_interface_name(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length < 16 && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
	       strcspn(name, "/: \t\n\v\f\r") == length;
}

/* One `KEY=VALUE` of CNI_ARGS. */
static int read_pair(struct call *call, const char *pair, size_t length)
{
	static const char *const keys[] = {"K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID"};
	const char *equals = memchr(pair, '=', length);
	char *outs[] = {call->namespace, call->name, call->uid};
	const size_t sizes[] = {sizeof(call->namespace), sizeof(call->name), sizeof(call->uid)};
	const char *characters[] = {LOWER DIGITS "-.", LOWER DIGITS "-.", LOWER UPPER DIGITS "-_"};

	if (!equals)
		return -1;
	for (int i = 0; i < 3; i++) {
		size_t name = (size_t)(equals - pair);

		if (strlen(keys[i]) != name || memcmp(keys[i], pair, name) != 0)
			continue;
		/* Twice could mean two things. */
		if (outs[i][0])
			return -1;
		return copy(outs[i], sizes[i], equals + 1, length - name - 1, characters[i]);
	}
	return 0;
}

static int read_args(struct call *call, const char *args)
{
	while (*args) {
		size_t length = strcspn(args, ";");

		if (length > 0 && read_pair(call, args, length) < 0)
			return -1;
		args += length;
		if (*args)
			args++;
	}
	return 0;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);

	return value ? value : "";
}

int call_read(struct call *call, struct failure *failure)
{
	const char *container = environment("CNI_CONTAINERID");
	const char *netns = environment("CNI_NETNS");

	if (copy(call->container, sizeof(call->container), container, strlen(container),
		 LOWER UPPER DIGITS "_.-") < 0)
		return fail(failure, CNI_BAD_ENVIRONMENT,
			    "CNI_CONTAINERID is missing or is no id of a container");
	if (!is_interface_name(environment("CNI_IFNAME")))
		return fail(failure, CNI_BAD_ENVIRONMENT,
			    "CNI_IFNAME is missing or is no name of an interface");
	/* After a container's end its namespace may have no path any more. */
	if (call->command != COMMAND_DEL && netns[0] != '/')
		return fail(failure, CNI_BAD_ENVIRONMENT, "CNI_NETNS is no absolute path");
	if (strlen(netns) >= sizeof(call->netns))
		return fail(failure, CNI_BAD_ENVIRONMENT, "CNI_NETNS is too long");
	strcpy(call->netns, netns);
	if (read_args(call, environment("CNI_ARGS")) < 0 ||
	    (call->namespace[0] == 0) != (call->name[0] == 0))
		return fail(failure, CNI_BAD_ENVIRONMENT, "CNI_ARGS does not name a pod: %s",
			    environment("CNI_ARGS"));
	if (call->uid[0] == 0 && call->namespace[0] &&
	    copy(call->uid, sizeof(call->uid), call->container, strlen(call->container),
		 LOWER UPPER DIGITS "-_") < 0)
		return fail(
			failure, CNI_BAD_ENVIRONMENT,
			"CNI_ARGS has no K8S_POD_UID and the container's id cannot stand for it");
	return 0;
}
