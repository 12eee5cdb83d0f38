/* SPDX-License-Identifier: Apache-2.0 */
/* Text that is put together piece by piece in a buffer of fixed size. Must not live here: what it
 * says. */
#ifndef AMBIT_CNI_TEXT_H
#define AMBIT_CNI_TEXT_H

#include <stddef.h>

struct text {
	char *at;
	size_t size;
	size_t length;
	/* Something did not fit: the text is of no use. */
	int overflow;
};

void text_add(struct text *text, const char *piece);
/* As a string of JSON. Bytes that are no UTF-8 come out as `?`. */
void text_add_string(struct text *text, const char *value);

#endif
