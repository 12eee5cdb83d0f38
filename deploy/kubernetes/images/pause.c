// Holds the namespaces of a pod, or of a whole node of the sandbox, as their first process: waits for ever, reaps what
// others leave behind, ends when told. Static, no library but libc, nothing to configure.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number)
{
	_exit(number == SIGINT ? 1 : 0);
}

static void reap(int number)
{
	(void)number;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	// The first process of a namespace gets only signals it has a handler for.
	struct sigaction ending = { .sa_handler = end };
	struct sigaction reaping = { .sa_handler = reap, .sa_flags = SA_NOCLDSTOP };

	if (sigaction(SIGINT, &ending, NULL) || sigaction(SIGTERM, &ending, NULL) || sigaction(SIGCHLD, &reaping, NULL))
		return 2;
	for (;;)
		pause();
}
