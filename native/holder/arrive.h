/* SPDX-License-Identifier: Apache-2.0 */
/* The way to the path: alone, or by taking over from the holder that is there. Must not live here:
 * what is done there (serve.c). */
#pragma once

#include "serve.h"

/* Becomes the holder at the path and fills `server` but for linger_ms. Returns 0 or -errno; then
 * nothing has changed at the path, and nothing is kept. */
int arrive(const char *path, struct server *server);
