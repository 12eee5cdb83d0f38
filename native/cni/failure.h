/* SPDX-License-Identifier: Apache-2.0 */
/* Why a call cannot be served, as the CNI specification has it said: a code, a sentence, details.
 * Must not live here: printing it (main.c). */
#ifndef AMBIT_CNI_FAILURE_H
#define AMBIT_CNI_FAILURE_H

/* Codes below 100 are the specification's (CNI 1.1, section 5). Each is explained in
 * deploy/reference/errors.md. */
enum {
	CNI_INCOMPATIBLE = 1,
	CNI_BAD_ENVIRONMENT = 4,
	CNI_IO = 5,
	CNI_UNDECODABLE = 6,
	CNI_BAD_CONFIG = 7,
	CNI_TRY_AGAIN = 11,
	/* The agent refused, and would again. */
	AMBIT_REFUSED = 100,
	/* CHECK: the pod is not as its registration says. */
	AMBIT_NOT_CAPTURED = 101,
};

struct failure {
	unsigned code;
	char message[512];
	char details[1024];
};

/* Sets it and returns -1. What does not fit is cut. */
__attribute__((format(printf, 3, 4))) int fail(struct failure *failure, unsigned code,
					       const char *format, ...);

#endif
