// SPDX-License-Identifier: Apache-2.0
/* See json.h. */
#include "json.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

struct cursor {
	const char *at;
	const char *end;
};

static int more(const struct cursor *cursor)
{
	return cursor->at < cursor->end;
}

static int take(struct cursor *cursor, char wanted)
{
	if (!more(cursor) || *cursor->at != wanted)
		return 0;
	cursor->at++;
	return 1;
}

static void skip_space(struct cursor *cursor)
{
	while (more(cursor) && (*cursor->at == ' ' || *cursor->at == '\t' || *cursor->at == '\n' ||
				*cursor->at == '\r'))
		cursor->at++;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Four hexadecimal digits, or -1; moves only if they are there. */
static int32_t hex4(struct cursor *cursor)
{
	int32_t value = 0;

	if (cursor->end - cursor->at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		int digit = hex_digit(cursor->at[i]);

		if (digit < 0)
			return -1;
		value = value * 16 + digit;
	}
	cursor->at += 4;
	return value;
}

/* One character of UTF-8 beyond ASCII (RFC 3629: shortest form, no surrogates, up to U+10FFFF). */
static int skip_utf8(struct cursor *cursor)
{
	const unsigned char *at = (const unsigned char *)cursor->at;
	size_t left = (size_t)(cursor->end - cursor->at);
	unsigned char low = 0x80, high = 0xbf;
	size_t tail;

	if (at[0] >= 0xc2 && at[0] <= 0xdf)
		tail = 1;
	else if (at[0] >= 0xe0 && at[0] <= 0xef)
		tail = 2;
	else if (at[0] >= 0xf0 && at[0] <= 0xf4)
		tail = 3;
	else
		return 0;
	if (at[0] == 0xe0)
		low = 0xa0;
	else if (at[0] == 0xed)
		high = 0x9f;
	else if (at[0] == 0xf0)
		low = 0x90;
	else if (at[0] == 0xf4)
		high = 0x8f;
	if (left <= tail || at[1] < low || at[1] > high)
		return 0;
	for (size_t i = 2; i <= tail; i++)
		if (at[i] < 0x80 || at[i] > 0xbf)
			return 0;
	cursor->at += tail + 1;
	return 1;
}

static int scan_string(struct cursor *cursor)
{
	if (!take(cursor, '"'))
		return 0;
	while (more(cursor)) {
		unsigned char c = (unsigned char)*cursor->at;

		if (c == '"') {
			cursor->at++;
			return 1;
		}
		if (c < 0x20)
			return 0;
		if (c >= 0x80) {
			if (!skip_utf8(cursor))
				return 0;
			continue;
		}
		cursor->at++;
		if (c != '\\')
			continue;
		if (!more(cursor) || !*cursor->at || !strchr("\"\\/bfnrtu", *cursor->at))
			return 0;
		if (*cursor->at++ == 'u' && hex4(cursor) < 0)
			return 0;
	}
	return 0;
}

static int digits(struct cursor *cursor)
{
	const char *from = cursor->at;

	while (more(cursor) && *cursor->at >= '0' && *cursor->at <= '9')
		cursor->at++;
	return cursor->at > from;
}

static int scan_number(struct cursor *cursor)
{
	take(cursor, '-');
	if (!take(cursor, '0') && !digits(cursor))
		return 0;
	if (take(cursor, '.') && !digits(cursor))
		return 0;
	if (take(cursor, 'e') || take(cursor, 'E')) {
		if (!take(cursor, '+'))
			take(cursor, '-');
		return digits(cursor);
	}
	return 1;
}

static int scan_word(struct cursor *cursor, const char *word)
{
	for (; *word; word++)
		if (!take(cursor, *word))
			return 0;
	return 1;
}

static int scan_value(struct cursor *cursor, int depth);

static int scan_container(struct cursor *cursor, int depth)
{
	char close = *cursor->at++ == '{' ? '}' : ']';

	if (depth == 0)
		return 0;
	skip_space(cursor);
	if (take(cursor, close))
		return 1;
	do {
		skip_space(cursor);
		if (close == '}') {
			if (!scan_string(cursor))
				return 0;
			skip_space(cursor);
			if (!take(cursor, ':'))
				return 0;
			skip_space(cursor);
		}
		if (!scan_value(cursor, depth - 1))
			return 0;
		skip_space(cursor);
	} while (take(cursor, ','));
	return take(cursor, close);
}

/* From the first byte of a value to behind its last; on failure the cursor is where it is wrong. */
static int scan_value(struct cursor *cursor, int depth)
{
	if (!more(cursor))
		return 0;
	switch (*cursor->at) {
	case '{':
	case '[':
		return scan_container(cursor, depth);
	case '"':
		return scan_string(cursor);
	case 't':
		return scan_word(cursor, "true");
	case 'f':
		return scan_word(cursor, "false");
	case 'n':
		return scan_word(cursor, "null");
	default:
		return scan_number(cursor);
	}
}

int json_check(const char *text, size_t length, struct json *value, size_t *wrong)
{
	struct cursor cursor = {.at = text, .end = text + length};
	int valid;

	skip_space(&cursor);
	value->at = cursor.at;
	valid = scan_value(&cursor, JSON_DEPTH);
	value->length = (size_t)(cursor.at - value->at);
	if (valid)
		skip_space(&cursor);
	*wrong = (size_t)(cursor.at - text);
	return valid && !more(&cursor) ? 0 : -EBADMSG;
}

struct json_walk json_enter(struct json container)
{
	struct json_walk walk = {.at = container.at, .end = container.at, .open = 0};

	if (json_is(container, '{') || json_is(container, '[')) {
		walk.open = container.at[0];
		walk.at = container.at + 1;
		walk.end = container.at + container.length - 1;
	}
	return walk;
}

static struct json scan_span(struct cursor *cursor)
{
	struct json span = {.at = cursor->at};

	scan_value(cursor, JSON_DEPTH);
	span.length = (size_t)(cursor->at - span.at);
	return span;
}

int json_next(struct json_walk *walk, struct json *key, struct json *value)
{
	struct cursor cursor = {.at = walk->at, .end = walk->end};

	skip_space(&cursor);
	if (!more(&cursor))
		return 0;
	*key = (struct json){.at = cursor.at, .length = 0};
	if (walk->open == '{') {
		*key = scan_span(&cursor);
		skip_space(&cursor);
		take(&cursor, ':');
		skip_space(&cursor);
	}
	*value = scan_span(&cursor);
	skip_space(&cursor);
	take(&cursor, ',');
	walk->at = cursor.at;
	return 1;
}

int json_member(struct json object, const char *name, struct json *value)
{
	struct json_walk walk = json_enter(object);
	struct json key, found;
	/* Names that are asked for are short: what does not fit is another one. */
	char text[64];
	int count = 0;

	if (!json_is(object, '{'))
		return 0;
	while (json_next(&walk, &key, &found)) {
		if (json_string(key, text, sizeof(text)) < 0 || strcmp(text, name) != 0)
			continue;
		if (count++ > 0)
			return -EEXIST;
		*value = found;
	}
	return count;
}

/* The code point behind `\u`, two escapes if it is a surrogate pair; -1 for half of one. */
static int32_t escaped(struct cursor *cursor)
{
	int32_t first = hex4(cursor);
	int32_t second;

	if (first < 0xd800 || first > 0xdfff)
		return first;
	if (first > 0xdbff || !take(cursor, '\\') || !take(cursor, 'u'))
		return -1;
	second = hex4(cursor);
	if (second < 0xdc00 || second > 0xdfff)
		return -1;
	return 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
}

static size_t encode_utf8(uint32_t point, char out[4])
{
	if (point < 0x80) {
		out[0] = (char)point;
		return 1;
	}
	if (point < 0x800) {
		out[0] = (char)(0xc0 | point >> 6);
		out[1] = (char)(0x80 | (point & 0x3f));
		return 2;
	}
	if (point < 0x10000) {
		out[0] = (char)(0xe0 | point >> 12);
		out[1] = (char)(0x80 | (point >> 6 & 0x3f));
		out[2] = (char)(0x80 | (point & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | point >> 18);
	out[1] = (char)(0x80 | (point >> 12 & 0x3f));
	out[2] = (char)(0x80 | (point >> 6 & 0x3f));
	out[3] = (char)(0x80 | (point & 0x3f));
	return 4;
}

/* What an escape stands for, without its backslash; the number of bytes or 0. */
static size_t unescape(struct cursor *cursor, char out[4])
{
	static const char from[] = "\"\\/bfnrt";
	static const char to[] = "\"\\/\b\f\n\r\t";
	const char *found;
	int32_t point;

	if (take(cursor, 'u')) {
		point = escaped(cursor);
		return point > 0 ? encode_utf8((uint32_t)point, out) : 0;
	}
	found = strchr(from, *cursor->at++);
	out[0] = to[found - from];
	return 1;
}

int json_string(struct json value, char *out, size_t size)
{
	struct cursor cursor = {.at = value.at + 1, .end = value.at + value.length - 1};
	size_t length = 0;

	if (!json_is(value, '"'))
		return -EINVAL;
	while (more(&cursor)) {
		char bytes[4];
		size_t count = 1;

		bytes[0] = *cursor.at++;
		if (bytes[0] == '\\')
			count = unescape(&cursor, bytes);
		if (count == 0)
			return -EINVAL;
		if (length + count >= size)
			return -ENAMETOOLONG;
		memcpy(out + length, bytes, count);
		length += count;
	}
	out[length] = 0;
	return (int)length;
}

int json_unsigned(struct json value, unsigned long most, unsigned long *out)
{
	unsigned long sum = 0;

	if (value.length == 0 || value.length > 9)
		return -EINVAL;
	for (size_t i = 0; i < value.length; i++) {
		if (value.at[i] < '0' || value.at[i] > '9')
			return -EINVAL;
		sum = sum * 10 + (unsigned long)(value.at[i] - '0');
	}
	if (sum > most)
		return -EINVAL;
	*out = sum;
	return 0;
}
