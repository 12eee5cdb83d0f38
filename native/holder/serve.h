/* SPDX-License-Identifier: Apache-2.0 */
/* The holder while it is the one at the path: its clients and what it answers them. Must not live
 * here: how it came there (main.c), the sets (sets.c). */
#pragma once

#include <signal.h>
#include <stdint.h>

enum served {
	/* Another holder has everything; `successor` is the connection to it. */
	SERVED_TAKEN_OVER,
	/* Asked to end, and nothing is kept, or nobody came for it in time. */
	SERVED_ENDED,
};

struct server {
	/* Listening socket; closed by serve(). */
	int listening;
	/* A holder that was at the path before and waits, or -1. Stays open: its end tells that one
	   that it is needed. */
	int predecessor;
	uint64_t instance;
	/* Milliseconds to wait for a successor once asked to end while sets are kept. */
	uint64_t linger_ms;
	/* Out: see SERVED_TAKEN_OVER. */
	int successor;
};

/* Set by the signal handler: SIGTERM or SIGINT came. */
extern volatile int asked_to_end;
/* Signals held back while waiting for something to happen. */
extern sigset_t while_waiting;

/* Serves until one of the outcomes. All connections but `successor` and `predecessor` are closed
 * then. */
enum served serve(struct server *server);

/* One line of JSON on standard error. */
void say(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));
