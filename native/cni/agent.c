// SPDX-License-Identifier: Apache-2.0
/* See agent.h. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pause_ms(unsigned milliseconds)
{
	struct timespec span = {.tv_sec = milliseconds / 1000,
				.tv_nsec = (long)(milliseconds % 1000) * 1000000};

	nanosleep(&span, NULL);
}

/* Until the socket is ready. 0 or -errno. */
static int wait_for(int fd, short events, uint64_t until)
{
	for (;;) {
		struct pollfd polled = {.fd = fd, .events = events};
		uint64_t now = now_ms();
		int ready;

		if (now >= until)
			return -ETIMEDOUT;
		ready = poll(&polled, 1, (int)(until - now));
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -errno;
	}
}

/* Whoever could put a socket at the path could otherwise say that a pod is captured. */
static int check_peer(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return -errno;
	return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

static int send_all(int fd, const char *bytes, size_t length, uint64_t until)
{
	while (length > 0) {
		ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
		int error;

		if (sent >= 0) {
			bytes += sent;
			length -= (size_t)sent;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET)
			return -ECONNRESET;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		error = wait_for(fd, POLLOUT, until);
		if (error)
			return error;
	}
	return 0;
}

static int receive_line(int fd, char answer[ANSWER_SIZE], uint64_t until)
{
	size_t length = 0;

	for (;;) {
		int error = wait_for(fd, POLLIN, until);
		ssize_t received;
		char *end;

		if (error)
			return error;
		if (length == ANSWER_SIZE)
			return -EMSGSIZE;
		received = recv(fd, answer + length, ANSWER_SIZE - length, MSG_DONTWAIT);
		if (received < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (received <= 0)
			return -ECONNRESET;
		end = memchr(answer + length, '\n', (size_t)received);
		if (end)
			return (int)(end - answer);
		length += (size_t)received;
	}
}

int agent_ask(const char *path, const char *request, size_t length, char answer[ANSWER_SIZE],
	      uint64_t until)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	/* A connect to a unix socket is done at once or, its queue being full, refused with EAGAIN.
	 */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	error = connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	if (!error)
		error = check_peer(fd);
	if (!error)
		error = send_all(fd, request, length, until);
	if (!error)
		error = receive_line(fd, answer, until);
	close(fd);
	return error;
}
