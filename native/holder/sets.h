/* SPDX-License-Identifier: Apache-2.0 */
/* The sets kept: names with their descriptors, in byte order of the names. Must not live here:
 * sockets of clients, the protocol. */
#pragma once

#include <stddef.h>

#include "protocol.h"

struct set {
	char name[HOLDER_NAME_MAX + 1];
	int count;
	int fds[HOLDER_SET_MAX];
};

/* True if these bytes can be a name. */
int name_is_valid(const char *name, size_t length);

/* The set of that name, or NULL. Valid until the next change. */
const struct set *sets_find(const char *name);

/* The first set whose name is after `name` in byte order ("" for the very first), or NULL. */
const struct set *sets_after(const char *name);

/* Keeps a set, in place of one of the same name. Owns the descriptors if it returns 0, else -ENOSPC
 * or -ENOMEM. */
int sets_put(const char *name, const int *fds, int count);

/* Closes and forgets. Returns 0 or -ENOENT. */
int sets_drop(const char *name);

/* The same for all names with the prefix ("" for all). Returns how many. */
unsigned int sets_drop_all(const char *prefix);

unsigned int sets_count(void);
