// SPDX-License-Identifier: Apache-2.0
/* See serve.h. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "packet.h"
#include "sets.h"

/* How often time limits are looked at. */
#define TICK_MS 200

struct client {
	int fd;
	uint64_t heard_at;
};

static struct client clients[HOLDER_CLIENTS_MAX];
static int client_count;
/* Descriptor of the one that takes over, or -1, and since when. */
static int taker = -1;
static uint64_t taking_since;

static void close_client(int index)
{
	if (clients[index].fd == taker)
		taker = -1;
	close(clients[index].fd);
	clients[index] = clients[--client_count];
}

static void accept_client(int listening)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (!peer_is_trusted(fd)) {
		say("warn", "a process of another user was refused");
		close(fd);
	} else if (client_count == HOLDER_CLIENTS_MAX) {
		say("warn", "more than %d connections, one was closed", HOLDER_CLIENTS_MAX);
		close(fd);
	} else {
		clients[client_count++] = (struct client){.fd = fd, .heard_at = now_ms()};
	}
}

static int all_listen(const struct packet *packet)
{
	for (int i = 0; i < packet->count; i++) {
		int listens = 0;
		socklen_t size = sizeof(listens);

		if (getsockopt(packet->fds[i], SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 ||
		    !listens)
			return 0;
	}
	return 1;
}

static int is_sealed(int fd)
{
	const int whole = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	/* Sockets, pipes and files of a disk have no seals: EINVAL. */
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & whole) == whole;
}

/* Whether one more set may be memory. Returns 0 or an errno. */
static int check_memory(const char *name, int fd)
{
	unsigned int others = 0;
	struct stat found;

	if (fstat(fd, &found) != 0 || found.st_size > HOLDER_MEMORY_MAX)
		return EFBIG;
	for (const struct set *set = sets_after(""); set; set = sets_after(set->name))
		if (strcmp(set->name, name) != 0 && is_sealed(set->fds[0]))
			others++;
	return others < HOLDER_MEMORIES_MAX ? 0 : ENOSPC;
}

static int put(struct packet *packet)
{
	int error = 0;

	if (!name_is_valid(packet->body, packet->length) || packet->count == 0)
		return EINVAL;
	if (packet->count == 1 && is_sealed(packet->fds[0]))
		error = check_memory(packet->body, packet->fds[0]);
	else if (!all_listen(packet))
		error = EINVAL;
	if (error)
		return error;
	error = -sets_put(packet->body, packet->fds, packet->count);
	if (!error)
		packet->count = 0;
	return error;
}

/* The descriptors of `answer` stay the set's: packet_send() copies them. */
static int get(const struct packet *ask, struct packet *answer)
{
	const struct set *set = name_is_valid(ask->body, ask->length) ? sets_find(ask->body) : NULL;

	if (!set)
		return ENOENT;
	answer->count = set->count;
	memcpy(answer->fds, set->fds, sizeof(answer->fds));
	return 0;
}

static int list(const struct packet *ask, struct packet *answer)
{
	const struct set *set;

	if (ask->length > 0 && !name_is_valid(ask->body, ask->length))
		return EINVAL;
	for (set = sets_after(ask->body); set; set = sets_after(set->name)) {
		size_t size = strlen(set->name) + 1;

		if (answer->length + size > HOLDER_BODY_MAX)
			break;
		memcpy(answer->body + answer->length, set->name, size);
		answer->length += size;
		answer->head.count++;
	}
	return 0;
}

static int drop_all(const struct packet *ask, struct packet *answer)
{
	if (ask->length > 0 && !name_is_valid(ask->body, ask->length))
		return EINVAL;
	answer->head.count = sets_drop_all(ask->body);
	return 0;
}

static int take_over(int fd)
{
	if (taker >= 0 && taker != fd)
		return EBUSY;
	taker = fd;
	taking_since = now_ms();
	return 0;
}

/* Answers one request; the status. */
static int perform(int fd, struct packet *ask, struct packet *answer)
{
	int kind = ask->head.kind;
	int changes = kind == HOLDER_PUT || kind == HOLDER_DROP || kind == HOLDER_DROP_ALL;

	if (ask->head.magic != HOLDER_MAGIC)
		return EPROTO;
	if (ask->head.version != HOLDER_VERSION)
		return EPROTONOSUPPORT;
	if (ask->count > 0 && kind != HOLDER_PUT)
		return EINVAL;
	if (changes && taker >= 0)
		return EBUSY;
	switch (kind) {
	case HOLDER_STATUS:
		answer->head.count = sets_count();
		return 0;
	case HOLDER_PUT:
		return put(ask);
	case HOLDER_GET:
		return get(ask, answer);
	case HOLDER_LIST:
		return list(ask, answer);
	case HOLDER_DROP:
		return name_is_valid(ask->body, ask->length) ? -sets_drop(ask->body) : EINVAL;
	case HOLDER_DROP_ALL:
		return drop_all(ask, answer);
	case HOLDER_TAKE_OVER:
		return take_over(fd);
	case HOLDER_COMMIT:
		return fd == taker ? 0 : EPROTO;
	}
	return EPROTO;
}

/* One packet of a client. Returns 1 if it took over, 0 to go on, -1 if the client is to go. */
static int hear(struct server *server, struct client *client)
{
	/* Static: 16 KiB each, and one request at a time. */
	static struct packet ask;
	static struct packet answer;
	int received = packet_receive(client->fd, &ask);
	int committed;

	if (received == -EAGAIN)
		return 0;
	if (received != 1 && received != -EMSGSIZE)
		return -1;
	client->heard_at = now_ms();
	answer.head = (struct holder_head){
		.magic = HOLDER_MAGIC,
		.version = HOLDER_VERSION,
		.kind = ask.head.kind,
		.instance = server->instance,
	};
	answer.length = 0;
	answer.count = 0;
	answer.head.status = received == -EMSGSIZE ? EMSGSIZE : perform(client->fd, &ask, &answer);
	packet_close_fds(&ask);
	committed = answer.head.kind == HOLDER_COMMIT && answer.head.status == 0;
	if (packet_send(client->fd, &answer) != 0 && !committed)
		return -1;
	return committed;
}

static void check_times(uint64_t now)
{
	if (taker >= 0 && now - taking_since > HOLDER_TAKE_OVER_MS) {
		say("error", "a take-over was not finished within %d s and is undone",
		    HOLDER_TAKE_OVER_MS / 1000);
		for (int i = 0; i < client_count; i++)
			if (clients[i].fd == taker) {
				close_client(i);
				break;
			}
	}
	for (int i = client_count; i-- > 0;)
		if (clients[i].fd != taker && now - clients[i].heard_at > HOLDER_IDLE_MS)
			close_client(i);
}

/* Once asked to end: who was here before may take back; else somebody new may come. True when there
 * is nothing to wait for any more. */
static int may_end(struct server *server, uint64_t *until)
{
	struct packet leaving = {.head = {.magic = HOLDER_MAGIC,
					  .version = HOLDER_VERSION,
					  .kind = HOLDER_LEAVING,
					  .instance = server->instance}};

	if (sets_count() == 0)
		return 1;
	if (*until == 0) {
		*until = now_ms() + server->linger_ms;
		if (server->predecessor >= 0)
			packet_send(server->predecessor, &leaving);
		say("info", "asked to end, %u sets wait for the next holder", sets_count());
	}
	return now_ms() >= *until;
}

enum served serve(struct server *server)
{
	const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
	struct pollfd polled[HOLDER_CLIENTS_MAX + 2];
	uint64_t ends_at = 0;
	enum served outcome = SERVED_ENDED;

	server->successor = -1;
	taker = -1;
	for (;;) {
		int watched = client_count;

		if (asked_to_end && may_end(server, &ends_at))
			break;
		for (int i = 0; i < watched; i++)
			polled[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
		polled[watched] = (struct pollfd){.fd = server->listening, .events = POLLIN};
		/* Nothing is expected of it but its end. poll() passes over -1. */
		polled[watched + 1] = (struct pollfd){.fd = server->predecessor, .events = POLLIN};
		if (ppoll(polled, (nfds_t)watched + 2, watched > 0 || ends_at > 0 ? &tick : NULL,
			  &while_waiting) > 0) {
			if (polled[watched + 1].revents) {
				close(server->predecessor);
				server->predecessor = -1;
			}
			/* From the last: close_client() moves only those already heard. */
			for (int i = watched; i-- > 0;) {
				int heard;

				if (!polled[i].revents)
					continue;
				heard = hear(server, &clients[i]);
				if (heard > 0) {
					server->successor = clients[i].fd;
					clients[i] = clients[--client_count];
					outcome = SERVED_TAKEN_OVER;
					goto out;
				}
				if (heard < 0)
					close_client(i);
			}
			if (polled[watched].revents)
				accept_client(server->listening);
		}
		check_times(now_ms());
	}
out:
	taker = -1;
	while (client_count > 0)
		close_client(client_count - 1);
	close(server->listening);
	return outcome;
}
