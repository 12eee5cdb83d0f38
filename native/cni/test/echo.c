// SPDX-License-Identifier: Apache-2.0
/* The plugin's reader of JSON by itself, for tests: documents on standard input, each with its
 * length before it (four bytes, network order); a line for each on standard output: what was
 * understood, written anew, or `no`, or `half` for text that has half a surrogate pair or a NUL. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "text.h"

#define DOCUMENT_MAX (4 << 20)

static char written[6 * DOCUMENT_MAX];

static int echo_string(struct text *text, struct json value)
{
	char *decoded = malloc(value.length + 1);
	int length = json_string(value, decoded, value.length + 1);

	if (length >= 0)
		text_add_string(text, decoded);
	free(decoded);
	return length >= 0;
}

static int echo(struct text *text, struct json value)
{
	struct json_walk walk = json_enter(value);
	struct json key, member;
	int first = 1;

	if (json_is(value, '"'))
		return echo_string(text, value);
	if (!walk.open) {
		char plain[512];

		snprintf(plain, sizeof(plain), "%.*s", (int)value.length, value.at);
		text_add(text, plain);
		return 1;
	}
	text_add(text, walk.open == '{' ? "{" : "[");
	while (json_next(&walk, &key, &member)) {
		if (!first)
			text_add(text, ",");
		first = 0;
		if (walk.open == '{') {
			if (!echo_string(text, key))
				return 0;
			text_add(text, ":");
		}
		if (!echo(text, member))
			return 0;
	}
	text_add(text, walk.open == '{' ? "}" : "]");
	return 1;
}

int main(void)
{
	uint32_t size;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		size_t length = ntohl(size), wrong;
		struct text text = {.at = written, .size = sizeof(written)};
		struct json value;
		/* Exactly as long as the document: a byte too far is seen. */
		char *document;

		if (length > DOCUMENT_MAX)
			return 2;
		document = malloc(length ? length : 1);
		if (fread(document, 1, length, stdin) != length)
			return 2;
		if (json_check(document, length, &value, &wrong) < 0)
			puts(wrong <= length ? "no" : "beyond");
		else if (!echo(&text, value))
			puts("half");
		else
			printf("%.*s\n", (int)text.length, text.at);
		free(document);
		fflush(stdout);
	}
	return 0;
}
