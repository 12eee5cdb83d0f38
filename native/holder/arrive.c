// SPDX-License-Identifier: Apache-2.0
/* See arrive.h, and the take-over in protocol.h. */
#define _GNU_SOURCE
#include "arrive.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "packet.h"
#include "sets.h"

/* The old holder answers at once or not at all. */
#define ANSWER_MS 5000

/* Sends a request and waits for its answer, which replaces it. Returns 0 or -errno; descriptors of
 * the answer are the caller's. */
static int ask(int socket, struct packet *packet, enum holder_kind kind)
{
	uint64_t until = now_ms() + ANSWER_MS;
	int error;

	packet->head = (struct holder_head){
		.magic = HOLDER_MAGIC, .version = HOLDER_VERSION, .kind = kind};
	packet->count = 0;
	error = packet_send(socket, packet);
	while (!error) {
		struct pollfd polled = {.fd = socket, .events = POLLIN};
		uint64_t now = now_ms();

		if (now >= until)
			return -ETIMEDOUT;
		if (poll(&polled, 1, (int)(until - now)) <= 0)
			continue;
		error = packet_receive(socket, packet);
		if (error == 0)
			return -ECONNRESET;
		if (error == 1 && packet->head.kind == kind)
			return -packet->head.status;
		if (error == 1) {
			packet_close_fds(packet);
			return -EPROTO;
		}
		if (error == -EAGAIN)
			error = 0;
	}
	return error;
}

static int take_set(int old, const char *name)
{
	static struct packet packet;
	int error;

	packet.length = strlen(name);
	memcpy(packet.body, name, packet.length);
	error = ask(old, &packet, HOLDER_GET);
	if (!error)
		error = sets_put(name, packet.fds, packet.count);
	if (error)
		packet_close_fds(&packet);
	return error;
}

/* Copies everything from the holder at the other end, which keeps still meanwhile. */
static int take_all(int old)
{
	static struct packet names;
	char last[HOLDER_NAME_MAX + 1] = "";
	int error;

	names.length = 0;
	error = ask(old, &names, HOLDER_TAKE_OVER);
	while (!error) {
		names.length = strlen(last);
		memcpy(names.body, last, names.length);
		error = ask(old, &names, HOLDER_LIST);
		if (error || names.head.count == 0)
			break;
		for (size_t at = 0; at < names.length && !error;
		     at += strlen(names.body + at) + 1) {
			size_t length = strlen(names.body + at);

			/* In order, so that a strange holder cannot keep this going for ever. */
			if (!name_is_valid(names.body + at, length) ||
			    strcmp(names.body + at, last) <= 0) {
				error = -EPROTO;
				break;
			}
			memcpy(last, names.body + at, length + 1);
			error = take_set(old, last);
		}
	}
	return error;
}

/* One at a time: two that start at once would both find nobody at the path. Returns the lock or
 * -errno. */
static int lock_path(const char *path)
{
	struct sockaddr_un address;
	int error = socket_address(&address, path, ".lock");
	int fd;

	if (error)
		return error;
	fd = open(address.sun_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* Takes what the old holder has (`old` < 0: there is none) and listens at the path in its stead. */
static int replace(const char *path, int old, struct server *server)
{
	static struct packet packet;
	int error = 0;

	server->predecessor = -1;
	if (old >= 0)
		error = peer_is_trusted(old) ? take_all(old) : -EPERM;
	if (error)
		return error;
	server->listening = socket_listen(path);
	if (server->listening < 0)
		return server->listening;
	error = socket_publish(path);
	if (error) {
		close(server->listening);
		return error;
	}
	packet.length = 0;
	/* If there is no answer the old one is gone: all it had is here. */
	if (old >= 0 && ask(old, &packet, HOLDER_COMMIT) == 0)
		server->predecessor = old;
	return 0;
}

int arrive(const char *path, struct server *server)
{
	int lock = lock_path(path);
	int old;
	int error;

	if (lock < 0)
		return lock;
	old = socket_connect(path);
	if (old >= 0 || old == -ENOENT || old == -ECONNREFUSED)
		error = replace(path, old, server);
	else
		error = old;
	close(lock);
	if (old >= 0 && server->predecessor != old)
		close(old);
	if (error) {
		sets_drop_all("");
		return error;
	}
	if (getrandom(&server->instance, sizeof(server->instance), 0) < 0)
		server->instance = now_ms() ^ ((uint64_t)getpid() << 32);
	say("info", "at %s with %u sets%s", path, sets_count(),
	    old >= 0 ? " of the holder before" : "");
	return 0;
}
