/* The load of `npm run bench -- kernel`, both ends of it: as cheap as a program can be, so that
 * what is measured is the kernel's path. Built by load.ts. A client prints one line of JSON and
 * ends.
 *
 *   load serve PORT                         PORT echoes, PORT + 1 swallows, PORT + 2 closes at once
 *   load ping HOST PORT CONNECTIONS MS      one message of 64 bytes under way on each connection
 *   load stream HOST PORT SIZE MS           writes of SIZE bytes on one connection
 *   load connect HOST PORT MS               connect, wait for the end, close; one after the other
 *
 * Must not live here: which pods, which rounds, what is compared. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE 64
#define MAX_CONNECTIONS 1024
/* Latencies kept for percentiles: later ones are counted only. */
#define MAX_SAMPLES (8 << 20)

enum { ECHO, SINK, CLOSE, KINDS };

static char buffer[1 << 16];
static uint32_t *samples;
static size_t sample_count;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static uint64_t cpu_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void no_delay(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* ---- server ---- */

/* What epoll gives back: a connection, or a listener with `listens`. */
struct peer {
	int fd;
	int kind;
	int listens;
	uint64_t received;
	uint64_t began_ns;
};

static void watch(int epoll, int fd, int kind, int listens)
{
	struct peer *peer = calloc(1, sizeof(*peer));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};

	if (!peer)
		die("calloc");
	*peer = (struct peer){.fd = fd, .kind = kind, .listens = listens};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

static void listen_on(int epoll, int family, int port, int kind)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int one = 1;
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		if (family == AF_INET6 && errno == EAFNOSUPPORT)
			return;
		die("socket");
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, family == AF_INET ? (void *)&v4 : (void *)&v6,
		 family == AF_INET ? sizeof(v4) : sizeof(v6)) ||
	    listen(fd, 4096))
		die("listen");
	watch(epoll, fd, kind, 1);
}

static void accept_all(int epoll, const struct peer *listener)
{
	for (;;) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0) {
			if (errno == EAGAIN || errno == ECONNABORTED)
				return;
			die("accept");
		}
		if (listener->kind == CLOSE) {
			close(fd);
			continue;
		}
		no_delay(fd);
		watch(epoll, fd, listener->kind, 0);
	}
}

static void gone(struct peer *peer)
{
	close(peer->fd);
	free(peer);
}

static void serve_peer(struct peer *peer)
{
	ssize_t size = read(peer->fd, buffer, sizeof(buffer));

	if (size < 0 && errno == EAGAIN)
		return;
	if (size > 0 && peer->kind == ECHO) {
		/* A message is far smaller than a send buffer, and one at a time is under way. */
		if (write(peer->fd, buffer, size) != size)
			gone(peer);
		return;
	}
	if (size > 0) {
		if (peer->received == 0)
			peer->began_ns = now_ns();
		peer->received += size;
		return;
	}
	if (size == 0 && peer->kind == SINK) {
		uint64_t result[2] = {peer->received, now_ns() - peer->began_ns};

		if (write(peer->fd, result, sizeof(result)) < 0)
			perror("load: answer of the sink");
	}
	gone(peer);
}

static _Noreturn void serve(int port)
{
	struct epoll_event events[64];
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	for (int kind = ECHO; kind < KINDS; kind++) {
		listen_on(epoll, AF_INET, port + kind, kind);
		listen_on(epoll, AF_INET6, port + kind, kind);
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(epoll, events, 64, -1);

		for (int i = 0; i < count; i++) {
			struct peer *peer = events[i].data.ptr;

			if (peer->listens)
				accept_all(epoll, peer);
			else
				serve_peer(peer);
		}
	}
}

/* ---- clients ---- */

struct target {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address;
	socklen_t size;
};

static struct target target_of(const char *host, int port)
{
	struct target target = {.address.v4 = {.sin_family = AF_INET, .sin_port = htons(port)},
				.size = sizeof(struct sockaddr_in)};

	if (inet_pton(AF_INET, host, &target.address.v4.sin_addr) == 1)
		return target;
	target.address.v6 =
		(struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(port)};
	target.size = sizeof(struct sockaddr_in6);
	if (inet_pton(AF_INET6, host, &target.address.v6.sin6_addr) != 1)
		die(host);
	return target;
}

static int dial(const struct target *target)
{
	int fd = socket(target->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("socket");
	if (connect(fd, &target->address.any, target->size))
		die("connect");
	return fd;
}

static void sample(uint64_t ns)
{
	if (sample_count < MAX_SAMPLES)
		samples[sample_count++] = ns > UINT32_MAX ? UINT32_MAX : ns;
}

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* By nearest rank. */
static uint32_t percentile(double share)
{
	size_t rank = sample_count * share;

	return sample_count == 0 ? 0 : samples[rank < sample_count ? rank : sample_count - 1];
}

static void report(uint64_t count, uint64_t ns)
{
	qsort(samples, sample_count, sizeof(*samples), by_size);
	printf("{\"count\":%llu,\"ns\":%llu,\"cpuNs\":%llu,\"p50Ns\":%u,\"p99Ns\":%u}\n",
	       (unsigned long long)count, (unsigned long long)ns, (unsigned long long)cpu_ns(),
	       percentile(0.5), percentile(0.99));
}

static void send_message(int fd)
{
	static const char message[MESSAGE];

	if (write(fd, message, MESSAGE) != MESSAGE)
		die("write");
}

static int ping(const struct target *target, int connections, uint64_t duration_ns)
{
	static uint64_t sent_at[MAX_CONNECTIONS + 16];
	struct epoll_event events[64];
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	uint64_t count = 0;
	uint64_t begin;
	uint64_t now;

	if (connections < 1 || connections > MAX_CONNECTIONS)
		return 2;
	int fds[MAX_CONNECTIONS];

	for (int i = 0; i < connections; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};

		fds[i] = dial(target);
		no_delay(fds[i]);
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event))
			die("epoll_ctl");
	}
	begin = now = now_ns();
	for (int i = 0; i < connections; i++) {
		sent_at[i] = begin;
		send_message(fds[i]);
	}
	while (now - begin < duration_ns) {
		int ready = epoll_wait(epoll, events, 64, 5000);

		if (ready <= 0)
			die("no answer");
		for (int i = 0; i < ready; i++) {
			int one = events[i].data.u32;

			/* 64 bytes come in one piece. */
			if (read(fds[one], buffer, sizeof(buffer)) != MESSAGE)
				die("read");
			now = now_ns();
			sample(now - sent_at[one]);
			count++;
			sent_at[one] = now;
			send_message(fds[one]);
		}
	}
	report(count, now - begin);
	return 0;
}

static int stream(const struct target *target, size_t size, uint64_t duration_ns)
{
	uint64_t result[2];
	uint64_t begin = now_ns();
	int fd = dial(target);

	if (size < 1 || size > sizeof(buffer))
		return 2;
	while (now_ns() - begin < duration_ns) {
		/* Asking the clock would be a good part of a small write. */
		for (int i = 0; i < 64; i++)
			if (write(fd, buffer, size) != (ssize_t)size)
				die("write");
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, result, sizeof(result), MSG_WAITALL) != sizeof(result))
		die("answer of the sink");
	report(result[0], result[1]);
	return 0;
}

static int connects(const struct target *target, uint64_t duration_ns)
{
	uint64_t begin = now_ns();
	uint64_t now = begin;
	uint64_t count = 0;

	while (now - begin < duration_ns) {
		uint64_t start = now_ns();
		int fd = dial(target);

		sample(now_ns() - start);
		if (read(fd, buffer, sizeof(buffer)) != 0)
			die("the connection did not end as it should");
		close(fd);
		count++;
		now = now_ns();
	}
	report(count, now - begin);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct target target;
	uint64_t ns;

	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && strcmp(what, "serve") == 0)
		serve(atoi(argv[2]));
	samples = malloc(MAX_SAMPLES * sizeof(*samples));
	if (argc < 5 || !samples) {
		fputs("load: see the head of load.c\n", stderr);
		return 2;
	}
	target = target_of(argv[2], atoi(argv[3]));
	ns = strtoull(argv[argc - 1], NULL, 10) * 1000000ull;
	if (argc == 6 && strcmp(what, "ping") == 0)
		return ping(&target, atoi(argv[4]), ns);
	if (argc == 6 && strcmp(what, "stream") == 0)
		return stream(&target, strtoul(argv[4], NULL, 10), ns);
	if (argc == 5 && strcmp(what, "connect") == 0)
		return connects(&target, ns);
	fputs("load: see the head of load.c\n", stderr);
	return 2;
}
