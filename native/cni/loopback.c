// SPDX-License-Identifier: Apache-2.0
/* See loopback.h. */
#define _GNU_SOURCE
#include "loopback.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

void loopback_up(const char *netns)
{
	struct ifreq request = {.ifr_name = "lo"};
	int namespace = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	int fd;

	if (namespace < 0)
		return;
	/* Into this one only: a path to something else is refused by its kind. */
	if (setns(namespace, CLONE_NEWNET) == 0) {
		fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0 &&
		    !(request.ifr_flags & IFF_UP)) {
			request.ifr_flags |= IFF_UP;
			ioctl(fd, SIOCSIFFLAGS, &request);
		}
		if (fd >= 0)
			close(fd);
	}
	close(namespace);
}
