// SPDX-License-Identifier: Apache-2.0
/* ambit-cni: the CNI plugin that is chained behind a node's own. It tells the agent of each new pod
 * and lets the runtime go on only when the agent has captured it or knows that it stays out. Must
 * not live here: reading what came in (call.c, config.c), the socket (agent.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "call.h"
#include "config.h"
#include "failure.h"
#include "json.h"
#include "loopback.h"
#include "text.h"

/* The runtime writes the configuration before it waits. */
#define STDIN_MS 5000
/* A call that must be short whatever the agent does. */
#define BRIEF_MS 1000
/* How long an ADD waits for an agent that is not there: one that is restarted is back by then. */
#define AWAY_MS 2000
#define AGAIN_MS 50
/* Beyond all deadlines: whatever blocks (a full pipe to the runtime) ends with this process. */
#define LAST_RESORT_S 5

/* Names in requests are escaped to at most six times their length. */
#define REQUEST_SIZE (6 * (NETNS_SIZE + CONTAINER_SIZE + 4 * NAME_SIZE) + 4096)

static char input[CONFIG_MAX + 1];
static char answer_line[ANSWER_SIZE];
static char request_line[REQUEST_SIZE];

/* What the agent said. */
struct answer {
	int ok;
	char code[64];
	char message[512];
	char hint[512];
	char phase[32];
};

static int write_all(const char *bytes, size_t length)
{
	while (length > 0) {
		ssize_t written = write(STDOUT_FILENO, bytes, length);

		if (written < 0 && errno != EINTR)
			return -1;
		if (written > 0) {
			bytes += written;
			length -= (size_t)written;
		}
	}
	return 0;
}

/* Everything on standard input. 0 with its length, or -1 with the failure. */
static int read_input(size_t *length, struct failure *failure)
{
	uint64_t until = now_ms() + STDIN_MS;

	*length = 0;
	for (;;) {
		struct pollfd polled = {.fd = STDIN_FILENO, .events = POLLIN};
		uint64_t now = now_ms();
		ssize_t got;

		if (now >= until)
			return fail(failure, CNI_IO, "standard input did not end within %d seconds",
				    STDIN_MS / 1000);
		if (poll(&polled, 1, (int)(until - now)) <= 0)
			continue;
		got = read(STDIN_FILENO, input + *length, sizeof(input) - *length);
		if (got == 0)
			return 0;
		if (got < 0 && errno != EINTR)
			return fail(failure, CNI_IO, "standard input cannot be read: %s",
				    strerror(errno));
		if (got > 0)
			*length += (size_t)got;
		if (*length > CONFIG_MAX)
			return fail(failure, CNI_UNDECODABLE,
				    "the network configuration is longer than %d bytes",
				    CONFIG_MAX);
	}
}

static int refuse(const char *version, const struct failure *failure)
{
	/* Each byte can become six. */
	static char buffer[6 * sizeof(struct failure) + 256];
	struct text text = {.at = buffer, .size = sizeof(buffer)};
	char code[16];

	snprintf(code, sizeof(code), "%u", failure->code);
	text_add(&text, "{\"cniVersion\":");
	text_add_string(&text, version[0] ? version : CNI_NEWEST);
	text_add(&text, ",\"code\":");
	text_add(&text, code);
	text_add(&text, ",\"msg\":");
	text_add_string(&text, failure->message);
	if (failure->details[0]) {
		text_add(&text, ",\"details\":");
		text_add_string(&text, failure->details);
	}
	text_add(&text, "}\n");
	write_all(text.at, text.length);
	return 1;
}

static int versions(void)
{
	static char buffer[512];
	struct text text = {.at = buffer, .size = sizeof(buffer)};
	struct failure failure;
	struct json root, value;
	char version[VERSION_SIZE];
	size_t length, wrong;

	/* It is to be in the form of the version that was asked in; all have the same. */
	if (read_input(&length, &failure) < 0 || json_check(input, length, &root, &wrong) < 0 ||
	    json_member(root, "cniVersion", &value) != 1 ||
	    json_string(value, version, sizeof(version)) <= 0)
		strcpy(version, CNI_NEWEST);
	text_add(&text, "{\"cniVersion\":");
	text_add_string(&text, version);
	text_add(&text, ",\"supportedVersions\":[");
	for (int i = 0; config_versions[i]; i++) {
		text_add(&text, i ? "," : "");
		text_add_string(&text, config_versions[i]);
	}
	text_add(&text, "]}\n");
	return write_all(text.at, text.length) < 0;
}

static void add_member(struct text *text, const char *name, const char *value)
{
	text_add(text, ",\"");
	text_add(text, name);
	text_add(text, "\":");
	text_add_string(text, value);
}

/* The request of a command, in the words of the agent's local API. */
static struct text request_of(const struct call *call, const struct addresses *addresses)
{
	static const char *const operations[] = {
		[COMMAND_ADD] = "add",
		[COMMAND_CHECK] = "check",
		[COMMAND_DEL] = "del",
		[COMMAND_GC] = "sweep",
	};
	struct text text = {.at = request_line, .size = sizeof(request_line)};

	text_add(&text, "{\"op\":");
	text_add_string(&text, operations[call->command]);
	if (call->uid[0]) {
		add_member(&text, "uid", call->uid);
		add_member(&text, "sandbox", call->container);
	}
	if (call->command == COMMAND_ADD) {
		add_member(&text, "namespace", call->namespace);
		add_member(&text, "name", call->name);
		add_member(&text, "netns", call->netns);
		text_add(&text, ",\"addresses\":[");
		for (unsigned i = 0; i < addresses->count; i++) {
			text_add(&text, i ? "," : "");
			text_add_string(&text, addresses->text[i]);
		}
		text_add(&text, "]");
	}
	text_add(&text, "}\n");
	return text;
}

static void answer_member(struct json root, const char *name, char *out, size_t size)
{
	struct json value;

	if (json_member(root, name, &value) != 1 || json_string(value, out, size) < 0)
		out[0] = 0;
}

/* 0, or -EBADMSG for what is no answer. */
static int answer_read(struct answer *answer, const char *line, size_t length)
{
	struct json root, ok;
	size_t wrong;

	if (json_check(line, length, &root, &wrong) < 0 || json_member(root, "ok", &ok) != 1)
		return -EBADMSG;
	answer->ok = json_is(ok, 't');
	answer_member(root, "code", answer->code, sizeof(answer->code));
	answer_member(root, "message", answer->message, sizeof(answer->message));
	answer_member(root, "hint", answer->hint, sizeof(answer->hint));
	answer_member(root, "phase", answer->phase, sizeof(answer->phase));
	return 0;
}

/* Asks until there is an answer, at most until `until`; of an agent that is not there, at most
 * `away_ms`. 0 or -errno. */
static int ask(const struct config *config, struct text request, struct answer *answer,
	       uint64_t until, unsigned away_ms)
{
	uint64_t there = now_ms();

	if (request.overflow)
		return -EMSGSIZE;
	for (;;) {
		int got = agent_ask(config->socket, request.at, request.length, answer_line, until);
		uint64_t now = now_ms();

		if (got >= 0)
			got = answer_read(answer, answer_line, (size_t)got);
		/* Another agent has taken over: it listens at the same path. */
		if (got == 0 && (answer->ok || strcmp(answer->code, "ENROLL_SUPERSEDED") != 0))
			return 0;
		if (got == 0)
			got = -ECONNRESET;
		if (got == -ENOENT || got == -ECONNREFUSED) {
			if (now - there >= away_ms)
				return got;
		} else if (got == -ECONNRESET || got == -EAGAIN) {
			/* It ends, or has no room for one more: it is there. */
			there = now;
		} else {
			return got;
		}
		if (now + AGAIN_MS >= until)
			return got;
		pause_ms(AGAIN_MS);
	}
}

/* Why there was no answer. */
static int unanswered(struct failure *failure, unsigned code, const struct config *config,
		      int error)
{
	const char *reason = strerror(-error);

	if (error == -ENOENT || error == -ECONNREFUSED)
		reason = "no agent listens there";
	else if (error == -ETIMEDOUT)
		reason = "the agent took too long";
	else if (error == -ECONNRESET)
		reason = "the agent closed the connection";
	else if (error == -EPERM)
		reason = "who listens there is not the agent";
	else if (error == -EBADMSG || error == -EMSGSIZE)
		reason = "the answer makes no sense";
	snprintf(failure->details, sizeof(failure->details),
		 "Pods outside the exempt namespaces start when the Ambit agent of this node "
		 "answers.");
	return fail(failure, code, "the Ambit agent did not answer at %s: %s", config->socket,
		    reason);
}

/* What the agent refused. */
static int refused(struct failure *failure, unsigned code, const struct answer *answer)
{
	snprintf(failure->details, sizeof(failure->details), "%s%s%s", answer->code,
		 answer->hint[0] ? ": " : "", answer->hint);
	return fail(failure, code, "%s",
		    answer->message[0] ? answer->message : "the Ambit agent refused");
}

/* True for refusals that another try may not meet. */
static int passes_by_itself(const char *code)
{
	static const char *const codes[] = {"ENROLL_NO_STATE",	 "ENROLL_FAILED", "ENROLL_TIMEOUT",
					    "ENROLL_SUPERSEDED", "ENROLL_FULL",	  "ENROLL_REGISTRY",
					    "ENROLL_INTERNAL"};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
		if (strcmp(code, codes[i]) == 0)
			return 1;
	return 0;
}

/* A pod that this plugin has nothing to say about: of an exempt namespace, or not of Kubernetes. */
static int passes(const struct call *call, const struct config *config)
{
	return !call->namespace[0] || config_is_exempt(config, call->namespace);
}

static int add(const struct call *call, const struct config *config, struct failure *failure)
{
	static struct addresses addresses;
	struct answer answer;
	int error;

	if (config_require_previous(config, failure) < 0)
		return -1;
	if (passes(call, config))
		return 0;
	if (config_addresses(config, &addresses, failure) < 0)
		return -1;
	/* A unix socket at a path is reached from any network. */
	loopback_up(call->netns);
	error = ask(config, request_of(call, &addresses), &answer,
		    now_ms() + config->timeout_s * 1000, AWAY_MS);
	if (error)
		return unanswered(failure, CNI_TRY_AGAIN, config, error);
	if (!answer.ok)
		return refused(failure,
			       passes_by_itself(answer.code) ? CNI_TRY_AGAIN : AMBIT_REFUSED,
			       &answer);
	/* Anything else is not known to be safe. */
	if (strcmp(answer.phase, "captured") != 0 && strcmp(answer.phase, "out") != 0)
		return unanswered(failure, CNI_TRY_AGAIN, config, -EBADMSG);
	return 0;
}

static int check(const struct call *call, const struct config *config, struct failure *failure)
{
	struct answer answer;
	int error;

	if (passes(call, config))
		return 0;
	error = ask(config, request_of(call, NULL), &answer, now_ms() + config->timeout_s * 1000,
		    AWAY_MS);
	if (error)
		return unanswered(failure, CNI_TRY_AGAIN, config, error);
	if (!answer.ok)
		return refused(failure, AMBIT_NOT_CAPTURED, &answer);
	if (strcmp(answer.phase, "captured") != 0 && strcmp(answer.phase, "out") != 0)
		return fail(failure, AMBIT_NOT_CAPTURED,
			    "pod %s/%s is not captured: its phase is %s", call->namespace,
			    call->name, answer.phase);
	return 0;
}

/* Nothing holds up the end of a pod: the agent finds namespaces that are gone by itself. */
static void release(struct call *call)
{
	static struct config config;
	struct failure ignored;
	struct answer answer;
	size_t length;

	if (read_input(&length, &ignored) < 0 || config_read(&config, input, length, &ignored) < 0)
		return;
	if (call->command == COMMAND_DEL &&
	    (call_read(call, &ignored) < 0 || passes(call, &config)))
		return;
	ask(&config, request_of(call, NULL), &answer, now_ms() + BRIEF_MS, 0);
}

static int serve(struct call *call, struct config *config, struct failure *failure)
{
	size_t length;

	if (read_input(&length, failure) < 0 || config_read(config, input, length, failure) < 0)
		return -1;
	alarm((unsigned)config->timeout_s + LAST_RESORT_S);
	/* Pods of exempt namespaces can be added whether or not there is an agent, and the agent is
	 * one of them: a runtime that is not ready starts nothing at all. */
	if (call->command == COMMAND_STATUS)
		return 0;
	if (call_read(call, failure) < 0)
		return -1;
	return call->command == COMMAND_ADD ? add(call, config, failure)
					    : check(call, config, failure);
}

int main(void)
{
	static struct call call;
	static struct config config;
	static struct failure failure;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, SIG_DFL);
	alarm(STDIN_MS / 1000 + LAST_RESORT_S);
	call.command = call_command();
	switch (call.command) {
	case COMMAND_VERSION:
		return versions();
	case COMMAND_DEL:
	case COMMAND_GC:
		release(&call);
		return 0;
	case COMMAND_NONE:
		fail(&failure, CNI_BAD_ENVIRONMENT,
		     "CNI_COMMAND must be ADD, CHECK, DEL, STATUS, GC or VERSION");
		return refuse("", &failure);
	default:
		break;
	}
	if (serve(&call, &config, &failure) < 0)
		return refuse(config.version, &failure);
	/* As it came: the chain's result is not this plugin's. */
	if (call.command == COMMAND_ADD)
		return write_all(config.previous.at, config.previous.length) < 0 ||
		       write_all("\n", 1) < 0;
	return 0;
}
