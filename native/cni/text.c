// SPDX-License-Identifier: Apache-2.0
/* See text.h. */
#include "text.h"

#include <stdio.h>
#include <string.h>

#include "json.h"

static void add_bytes(struct text *text, const char *bytes, size_t count)
{
	if (text->overflow || count > text->size - text->length) {
		text->overflow = 1;
		return;
	}
	memcpy(text->at + text->length, bytes, count);
	text->length += count;
}

void text_add(struct text *text, const char *piece)
{
	add_bytes(text, piece, strlen(piece));
}

/* Bytes of the character at this place, 0 if it is no UTF-8. */
static size_t utf8_length(const char *at)
{
	/* A quote, up to four bytes, a quote: the reader's own rule for what UTF-8 is. */
	char quoted[6] = "\"";
	struct json value;
	size_t wrong;

	for (size_t length = 1; length <= 4 && at[length - 1]; length++) {
		quoted[length] = at[length - 1];
		quoted[length + 1] = '"';
		if (json_check(quoted, length + 2, &value, &wrong) == 0)
			return length;
	}
	return 0;
}

void text_add_string(struct text *text, const char *value)
{
	text_add(text, "\"");
	while (*value) {
		unsigned char c = (unsigned char)*value;
		char escape[8];
		size_t length;

		if (c == '"' || c == '\\') {
			snprintf(escape, sizeof(escape), "\\%c", c);
			text_add(text, escape);
			value++;
		} else if (c < 0x20) {
			snprintf(escape, sizeof(escape), "\\u%04x", c);
			text_add(text, escape);
			value++;
		} else {
			length = utf8_length(value);
			add_bytes(text, length ? value : "?", length ? length : 1);
			value += length ? length : 1;
		}
	}
	text_add(text, "\"");
}
