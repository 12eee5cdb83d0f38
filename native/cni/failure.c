// SPDX-License-Identifier: Apache-2.0
/* See failure.h. */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct failure *failure, unsigned code, const char *format, ...)
{
	va_list arguments;

	failure->code = code;
	va_start(arguments, format);
	vsnprintf(failure->message, sizeof(failure->message), format, arguments);
	va_end(arguments);
	return -1;
}
