/* SPDX-License-Identifier: Apache-2.0 */
/* Reading JSON (RFC 8259) where it lies: a document is checked whole once, then values are spans
 * of its text. No allocation, no recursion deeper than JSON_DEPTH. Must not live here: what a
 * member means (config.c). */
#ifndef AMBIT_CNI_JSON_H
#define AMBIT_CNI_JSON_H

#include <stddef.h>

/* Containers within containers. A result of a CNI plugin has five. */
#define JSON_DEPTH 64

/* A value, without the white space around it. */
struct json {
	const char *at;
	size_t length;
};

/* A place between the members of a container. */
struct json_walk {
	const char *at;
	const char *end;
	char open;
};

/* Checks a document: one value of strict JSON in valid UTF-8, nothing after it but white space.
 * Returns 0 or -EBADMSG, with the place of the first wrong byte in `wrong`. */
int json_check(const char *text, size_t length, struct json *value, size_t *wrong);

/* The functions below take values of a checked document only. */

static inline int json_is(struct json value, char first)
{
	return value.length > 0 && value.at[0] == first;
}

/* `{` or `[`; of anything else there are no members. */
struct json_walk json_enter(struct json container);
/* The next member. In an array the key is empty. 1, or 0 at the end. */
int json_next(struct json_walk *walk, struct json *key, struct json *value);
/* A member by its name. 1; 0 if there is none; -EEXIST if there are two, which means that two
 * readers could understand two things. */
int json_member(struct json object, const char *name, struct json *value);
/* The characters of a string, with a NUL behind them. Their number, or -EINVAL: no string, or a
 * NUL or half a surrogate pair is in it; -ENAMETOOLONG. */
int json_string(struct json value, char *out, size_t size);
/* A number without sign, fraction and exponent. 0 or -EINVAL. */
int json_unsigned(struct json value, unsigned long most, unsigned long *out);

#endif
