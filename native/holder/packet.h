/* SPDX-License-Identifier: Apache-2.0 */
/* One packet with its descriptors, in and out; and what else is asked of unix sockets. Must not
 * live here: what packets mean. */
#pragma once

#include <stddef.h>
#include <sys/un.h>

#include "protocol.h"

struct packet {
	struct holder_head head;
	/* One byte more than may come, so that it can be ended by a 0. */
	char body[HOLDER_BODY_MAX + 1];
	size_t length;
	int fds[HOLDER_SET_MAX];
	int count;
};

/* Receives without waiting. Returns 1; 0 at the end of the connection; -EAGAIN if there is none;
 * -EBADMSG without a whole head; -EMSGSIZE if the packet or its descriptors were more than may be
 * (then the head is there and all descriptors are closed); another -errno. The descriptors are the
 * caller's. */
int packet_receive(int socket, struct packet *packet);

/* Sends without waiting; the descriptors stay the caller's. Returns 0 or -errno. */
int packet_send(int socket, const struct packet *packet);

/* Closes what came with a packet and was not taken. */
void packet_close_fds(struct packet *packet);

/* Puts path and suffix into an address. Returns 0 or -ENAMETOOLONG. */
int socket_address(struct sockaddr_un *address, const char *path, const char *suffix);

/* Connects. Returns the socket, or -errno (-ENOENT, -ECONNREFUSED: nobody is there). */
int socket_connect(const char *path);

/* Listens at a temporary path beside `path`, with mode 0600. Returns the socket or -errno. */
int socket_listen(const char *path);

/* Renames the temporary path into place. Returns 0 or -errno. */
int socket_publish(const char *path);

/* True if the other end is a process of user 0 or of this one's user. */
int peer_is_trusted(int socket);

/* Milliseconds since some moment, never going back. */
uint64_t now_ms(void);
