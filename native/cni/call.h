/* SPDX-License-Identifier: Apache-2.0 */
/* What the runtime asks for, from the environment: CNI_COMMAND and its parameters, the names of
 * the pod in CNI_ARGS. Must not live here: the network configuration (config.h). */
#ifndef AMBIT_CNI_CALL_H
#define AMBIT_CNI_CALL_H

#include "failure.h"

enum command {
	COMMAND_NONE,
	COMMAND_ADD,
	COMMAND_CHECK,
	COMMAND_DEL,
	COMMAND_STATUS,
	COMMAND_GC,
	COMMAND_VERSION,
};

/* Longest forms, with their NUL: a container id is 64 digits today, names are DNS subdomains. */
#define CONTAINER_SIZE 257
#define NETNS_SIZE 4096
#define NAME_SIZE 254
#define UID_SIZE 129

struct call {
	enum command command;
	char container[CONTAINER_SIZE];
	char netns[NETNS_SIZE];
	/* Empty where the runtime is not one of Kubernetes. */
	char namespace[NAME_SIZE];
	char name[NAME_SIZE];
	/* The container's id where the runtime tells no uid. */
	char uid[UID_SIZE];
};

/* CNI_COMMAND, or COMMAND_NONE if there is none that this plugin knows. */
enum command call_command(void);
/* The parameters of `call->command`. 0, or -1 with the failure. */
int call_read(struct call *call, struct failure *failure);

#endif
