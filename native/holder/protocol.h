/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol of the holder, version 1. Must not live here: anything that runs.
 *
 * A unix socket of type SOCK_SEQPACKET: one packet a request, one packet the answer, one request at
 * a time. A packet is struct holder_head (the byte order of the machine: both ends are on it) and
 * up to HOLDER_BODY_MAX bytes. Descriptors travel beside it by SCM_RIGHTS. The answer repeats the
 * request's `kind`; its `status` is 0 or an errno.
 *
 * What is kept are sets: a name, and one to HOLDER_SET_MAX listening sockets in an order that means
 * something to who put them, or one piece of sealed memory (memfd_create, with all of F_SEAL_SEAL,
 * _SHRINK, _GROW and _WRITE). A name is 1 to HOLDER_NAME_MAX printable ASCII characters without
 * space. What is in memory the holder never reads.
 */

/* clang-format off */
/*   kind       request: body, descriptors   answer: body, descriptors; errno
 *   STATUS     -                            `count`: sets kept
 *   PUT        name, the set                replaces a set of that name. EINVAL: bad name, no or too
 *                                           many descriptors, one that is neither. EFBIG: too much
 *                                           memory. ENOSPC: full
 *   GET        name                         the set; the holder keeps it. ENOENT
 *   LIST       a name, or nothing           names after it in byte order, each ended by a 0 byte, as
 *                                           many as fit; `count`: how many; 0: no more
 *   DROP       name                         ENOENT
 *   DROP_ALL   a prefix, or nothing         `count`: sets dropped
 *   TAKE_OVER  -                            see below. EBUSY: another one is at it
 *   COMMIT     -                            only from who takes over (EPROTO)
 *   LEAVING    -                            never a request, see below
 */
/* clang-format on */

/* Every answer has `instance`, which differs between holders and between their runs: who sees a new
 * one looks what is there (LIST) and puts what is missing.
 *
 * Take-over. A new holder finds the old one by connecting to the path where both are to listen.
 * After TAKE_OVER the old one changes nothing (PUT, DROP and DROP_ALL of others are answered EBUSY:
 * try again soon) until COMMIT, the end of this connection, or HOLDER_TAKE_OVER_MS. The new one
 * reads all (LIST, GET), listens at a temporary path, renames that into place and sends COMMIT.
 * There is no moment without a holder at the path that has every set, and no change gets lost. The
 * old one answers, closes all other connections and what it kept, and waits on this connection:
 * when it reads a packet of kind LEAVING, or the end of it, it takes over in turn (the new pod was
 * ended first: a roll-back). So a pair of holders loses nothing in whatever order they are ended.
 *
 * Who may connect: processes of user 0 or of the holder's own user (SO_PEERCRED); the socket's mode
 * is 0600. A packet that makes no sense is answered (EPROTO, EINVAL, EMSGSIZE), one without a whole
 * head, or of a client that does not read its answers, ends the connection.
 */
#pragma once

#include <stdint.h>

/* "AMBH" */
#define HOLDER_MAGIC 0x48424d41u
#define HOLDER_VERSION 1

#define HOLDER_NAME_MAX 120
/* Sockets of one set. */
#define HOLDER_SET_MAX 8
/* Sets: a node has at most as many pods. */
#define HOLDER_SETS_MAX 4096
/* Sets that are memory, and bytes of each: the certificates of 4096 service accounts take 12 MB. */
#define HOLDER_MEMORIES_MAX 4
#define HOLDER_MEMORY_MAX (16 * 1024 * 1024)
#define HOLDER_BODY_MAX 16384
/* Connections at once; further ones are closed. */
#define HOLDER_CLIENTS_MAX 32
/* A connection without a request for so long is closed, but for those of a take-over. */
#define HOLDER_IDLE_MS 30000
#define HOLDER_TAKE_OVER_MS 10000

enum holder_kind {
	HOLDER_STATUS = 1,
	HOLDER_PUT = 2,
	HOLDER_GET = 3,
	HOLDER_LIST = 4,
	HOLDER_DROP = 5,
	HOLDER_DROP_ALL = 6,
	HOLDER_TAKE_OVER = 7,
	HOLDER_COMMIT = 8,
	HOLDER_LEAVING = 9,
};

/* Will stay as it is in every version. An answer to a version that is not known has status
 * EPROTONOSUPPORT and the holder's own version. */
struct holder_head {
	uint32_t magic;
	uint16_t version;
	uint16_t kind;
	int32_t status;
	uint32_t count;
	uint64_t instance;
};
