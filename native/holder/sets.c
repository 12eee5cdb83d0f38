// SPDX-License-Identifier: Apache-2.0
/* See sets.h. */
#include "sets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each on the heap: 4096 of them make 700 KiB, which most nodes never need. */
static struct set *sets[HOLDER_SETS_MAX];
static unsigned int count;

int name_is_valid(const char *name, size_t length)
{
	if (length == 0 || length > HOLDER_NAME_MAX)
		return 0;
	for (size_t i = 0; i < length; i++)
		if (name[i] <= ' ' || name[i] > '~')
			return 0;
	return 1;
}

/* Where the name is, or where it would have to be. */
static unsigned int place_of(const char *name, int *found)
{
	unsigned int low = 0;
	unsigned int high = count;

	*found = 0;
	while (low < high) {
		unsigned int middle = low + (high - low) / 2;
		int order = strcmp(sets[middle]->name, name);

		if (order == 0) {
			*found = 1;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void close_set(struct set *set)
{
	for (int i = 0; i < set->count; i++)
		close(set->fds[i]);
	set->count = 0;
}

const struct set *sets_find(const char *name)
{
	int found;
	unsigned int place = place_of(name, &found);

	return found ? sets[place] : NULL;
}

const struct set *sets_after(const char *name)
{
	int found;
	unsigned int place = place_of(name, &found);

	place += (unsigned int)found;
	return place < count ? sets[place] : NULL;
}

int sets_put(const char *name, const int *fds, int length)
{
	int found;
	unsigned int place = place_of(name, &found);
	struct set *set;

	if (found) {
		set = sets[place];
		close_set(set);
	} else {
		if (count == HOLDER_SETS_MAX)
			return -ENOSPC;
		set = calloc(1, sizeof(*set));
		if (!set)
			return -ENOMEM;
		memcpy(set->name, name, strlen(name) + 1);
		memmove(&sets[place + 1], &sets[place], (count - place) * sizeof(sets[0]));
		sets[place] = set;
		count++;
	}
	set->count = length;
	memcpy(set->fds, fds, (size_t)length * sizeof(*fds));
	return 0;
}

static void remove_at(unsigned int place)
{
	close_set(sets[place]);
	free(sets[place]);
	count--;
	memmove(&sets[place], &sets[place + 1], (count - place) * sizeof(sets[0]));
}

int sets_drop(const char *name)
{
	int found;
	unsigned int place = place_of(name, &found);

	if (!found)
		return -ENOENT;
	remove_at(place);
	return 0;
}

unsigned int sets_drop_all(const char *prefix)
{
	size_t length = strlen(prefix);
	unsigned int dropped = 0;

	for (unsigned int i = count; i-- > 0;) {
		if (strncmp(sets[i]->name, prefix, length) != 0)
			continue;
		remove_at(i);
		dropped++;
	}
	return dropped;
}

unsigned int sets_count(void)
{
	return count;
}
