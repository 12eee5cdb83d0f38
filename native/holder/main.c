// SPDX-License-Identifier: Apache-2.0
/* ambit-holder: keeps listening sockets while the program they belong to is restarted or replaced.
 * The way to the path (take-over), the signals, the way out. Must not live here: requests
 * (serve.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "arrive.h"
#include "packet.h"
#include "serve.h"
#include "sets.h"

#define DEFAULT_LINGER_S 25

volatile int asked_to_end;
sigset_t while_waiting;

static void on_signal(int number)
{
	(void)number;
	asked_to_end = 1;
}

void say(const char *level, const char *format, ...)
{
	char text[512];
	struct timespec now;
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	/* Texts are ours; a path in them is the only thing that could break the JSON. */
	for (char *at = text; *at; at++)
		if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
			*at = '?';
	clock_gettime(CLOCK_REALTIME, &now);
	dprintf(STDERR_FILENO,
		"{\"level\":\"%s\",\"time\":%lld,\"program\":\"holder\",\"pid\":%d,\"msg\":\"%s\"}"
		"\n",
		level, (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, (int)getpid(), text);
}

/* Waits beside the holder that took over. True if it leaves, false if this one is asked to end. */
static int wait_for_leave(int successor)
{
	static struct packet packet;
	int received;

	while (!asked_to_end) {
		struct pollfd polled = {.fd = successor, .events = POLLIN};

		if (ppoll(&polled, 1, NULL, &while_waiting) <= 0)
			continue;
		received = packet_receive(successor, &packet);
		if (received == 1)
			packet_close_fds(&packet);
		if (received == -EAGAIN || (received == 1 && packet.head.kind != HOLDER_LEAVING))
			continue;
		return 1;
	}
	return 0;
}

/* Removes the socket at the path if it is still this holder's. */
static void leave(const char *path, ino_t own)
{
	struct stat there;

	if (stat(path, &there) == 0 && there.st_ino == own)
		unlink(path);
}

/* At the path, until everything is handed over or this program is to end. True: hand-over. */
static int stay(const char *path, struct server *server)
{
	struct stat own = {0};

	stat(path, &own);
	if (serve(server) == SERVED_TAKEN_OVER) {
		sets_drop_all("");
		say("info", "another holder has taken over");
		return 1;
	}
	if (sets_count() > 0)
		say("error", "nobody came for %u sets, they are lost", sets_count());
	leave(path, own.st_ino);
	return 0;
}

static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int usage(void)
{
	fprintf(stderr,
		"usage: ambit-holder [--linger SECONDS] PATH\n"
		"Keeps listening sockets at the unix socket PATH (native/holder/README.md).\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	struct server server = {.linger_ms = DEFAULT_LINGER_S * 1000};
	sigset_t signals;
	const char *path;
	int error;

	if (argc == 4 && strcmp(argv[1], "--linger") == 0) {
		char *end;
		unsigned long seconds = strtoul(argv[2], &end, 10);

		if (*end || end == argv[2] || seconds > 3600)
			return usage();
		server.linger_ms = seconds * 1000;
	} else if (argc != 2) {
		return usage();
	}
	path = argv[argc - 1];
	if (path[0] != '/')
		return usage();
	raise_limit();
	signal(SIGPIPE, SIG_IGN);
	/* They come only while it waits (ppoll), so that none is missed between look and wait. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, &while_waiting);
	sigdelset(&while_waiting, SIGTERM);
	sigdelset(&while_waiting, SIGINT);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	error = arrive(path, &server);
	while (!error && stay(path, &server)) {
		int successor = server.successor;
		int predecessor = server.predecessor;
		int leaves = wait_for_leave(successor);

		/* The connection stays open until all is here: the other one must not think that
		   this one is gone. */
		error = leaves ? arrive(path, &server) : 0;
		close(successor);
		/* Of three the first may take over now, from whoever has everything. */
		if (predecessor >= 0)
			close(predecessor);
		if (!leaves)
			break;
	}
	if (!error) {
		say("info", "ended");
		return 0;
	}
	say("error", "cannot become the holder at %s: %s", path, strerror(-error));
	return 1;
}
