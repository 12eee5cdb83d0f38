// SPDX-License-Identifier: Apache-2.0
/* See packet.h. */
#define _GNU_SOURCE
#include "packet.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Of the temporary path; the pid keeps two that start at once apart. */
static const char *temporary_suffix(void)
{
	static char suffix[16];

	snprintf(suffix, sizeof(suffix), ".%d", (int)getpid());
	return suffix;
}

int packet_receive(int socket, struct packet *packet)
{
	char control[CMSG_SPACE(HOLDER_SET_MAX * sizeof(int))]
		__attribute__((aligned(sizeof(struct cmsghdr)))) = {0};
	struct iovec parts[2] = {
		{.iov_base = &packet->head, .iov_len = sizeof(packet->head)},
		{.iov_base = packet->body, .iov_len = HOLDER_BODY_MAX},
	};
	struct msghdr message = {
		.msg_iov = parts,
		.msg_iovlen = 2,
		.msg_control = control,
		/* CMSG_LEN, not CMSG_SPACE: its padding would let one more descriptor in. */
		.msg_controllen = CMSG_LEN(HOLDER_SET_MAX * sizeof(int)),
	};
	ssize_t size;

	packet->count = 0;
	packet->length = 0;
	do {
		size = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	} while (size < 0 && errno == EINTR);
	if (size < 0)
		return -errno;
	for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head;
	     head = CMSG_NXTHDR(&message, head)) {
		size_t length;

		if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
			continue;
		length = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < length && packet->count < HOLDER_SET_MAX; i++)
			memcpy(&packet->fds[packet->count++], CMSG_DATA(head) + i * sizeof(int),
			       sizeof(int));
	}
	if ((size_t)size < sizeof(packet->head)) {
		packet_close_fds(packet);
		return size == 0 ? 0 : -EBADMSG;
	}
	if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		packet_close_fds(packet);
		return -EMSGSIZE;
	}
	packet->length = (size_t)size - sizeof(packet->head);
	packet->body[packet->length] = 0;
	return 1;
}

int packet_send(int socket, const struct packet *packet)
{
	char control[CMSG_SPACE(HOLDER_SET_MAX * sizeof(int))]
		__attribute__((aligned(sizeof(struct cmsghdr)))) = {0};
	struct iovec parts[2] = {
		{.iov_base = (void *)&packet->head, .iov_len = sizeof(packet->head)},
		{.iov_base = (void *)packet->body, .iov_len = packet->length},
	};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	ssize_t size;

	if (packet->count > 0) {
		size_t bytes = (size_t)packet->count * sizeof(int);
		struct cmsghdr *head = (struct cmsghdr *)control;

		message.msg_control = control;
		message.msg_controllen = CMSG_SPACE(bytes);
		head->cmsg_level = SOL_SOCKET;
		head->cmsg_type = SCM_RIGHTS;
		head->cmsg_len = CMSG_LEN(bytes);
		memcpy(CMSG_DATA(head), packet->fds, bytes);
	}
	do {
		size = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (size < 0 && errno == EINTR);
	return size < 0 ? -errno : 0;
}

void packet_close_fds(struct packet *packet)
{
	for (int i = 0; i < packet->count; i++)
		close(packet->fds[i]);
	packet->count = 0;
}

int socket_address(struct sockaddr_un *address, const char *path, const char *suffix)
{
	int length;

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s%s", path, suffix);
	return length < 0 || (size_t)length >= sizeof(address->sun_path) ? -ENAMETOOLONG : 0;
}

static int make_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

int socket_connect(const char *path)
{
	struct sockaddr_un address;
	int error = socket_address(&address, path, "");
	int fd = error ? error : make_socket();

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

int socket_listen(const char *path)
{
	struct sockaddr_un address;
	int error = socket_address(&address, path, temporary_suffix());
	int fd = error ? error : make_socket();
	mode_t before;

	if (fd < 0)
		return fd;
	unlink(address.sun_path);
	/* Nobody else may connect from the very first moment. */
	before = umask(0177);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    listen(fd, HOLDER_CLIENTS_MAX) != 0)
		error = -errno;
	umask(before);
	if (!error)
		return fd;
	close(fd);
	return error;
}

int socket_publish(const char *path)
{
	struct sockaddr_un address;

	if (socket_address(&address, path, temporary_suffix()) != 0)
		return -ENAMETOOLONG;
	return rename(address.sun_path, path) == 0 ? 0 : -errno;
}

int peer_is_trusted(int socket)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
		return 0;
	return peer.uid == 0 || peer.uid == geteuid();
}

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
