/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's local API (agent/node/enroll/api.ts): a line of JSON each way over a unix socket,
 * in bounded time. Must not live here: what is asked. */
#ifndef AMBIT_CNI_AGENT_H
#define AMBIT_CNI_AGENT_H

#include <stddef.h>
#include <stdint.h>

/* Longest answer to one request. */
#define ANSWER_SIZE 65536

/* Monotonic. */
uint64_t now_ms(void);
void pause_ms(unsigned milliseconds);

/* One request (ending in a newline) on a connection of its own, one answer (without it, its length
 * is returned), before `until` (now_ms). Negative: -ENOENT or -ECONNREFUSED, nobody listens;
 * -EAGAIN, too many do; -ECONNRESET, no whole answer came; -EPERM, the one who listens is neither
 * root nor this user; -ETIMEDOUT; -EMSGSIZE; others of the kernel. */
int agent_ask(const char *path, const char *request, size_t length, char answer[ANSWER_SIZE],
	      uint64_t until);

#endif
