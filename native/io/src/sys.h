// The system calls of this addon, each in one place, so that a test build (AMBIT_IO_FAULTS) can
// make any of them fail or fall short at any time. Must not live here: decisions.
#pragma once
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace ambit_io::sys {

enum Call { kAccept, kConnect, kRecv, kSend, kEpollCtl, kSocket, kAlloc, kCalls };

#ifdef AMBIT_IO_FAULTS

// One plan per call: after `skip` calls, `count` calls fail with `error`; with error 0 and `limit`
// they fall short instead.
struct Plan {
  int error = 0;
  int skip = 0;
  int count = 0;
  size_t limit = 0;
};
inline thread_local Plan plans[kCalls];
inline thread_local long injected = 0;
// The last call failed or fell short by injection: the kernel will not say by an edge when to try again.
inline thread_local bool faked = false;

inline bool Fails(Call call) {
  Plan& plan = plans[call];
  if (plan.count == 0 || plan.error == 0) return false;
  if (plan.skip > 0) {
    plan.skip--;
    return false;
  }
  plan.count--;
  injected++;
  faked = true;
  errno = plan.error;
  return true;
}

inline bool Faked() {
  bool was = faked;
  faked = false;
  return was;
}

inline size_t Cap(Call call, size_t length) {
  Plan& plan = plans[call];
  if (plan.count == 0 || plan.error != 0 || plan.limit == 0) return length;
  if (plan.skip > 0) {
    plan.skip--;
    return length;
  }
  plan.count--;
  injected++;
  if (length > plan.limit) faked = true;
  return length < plan.limit ? length : plan.limit;
}

#else

inline bool Fails(Call) { return false; }
inline bool Faked() { return false; }
inline size_t Cap(Call, size_t length) { return length; }

#endif

inline int Accept(int fd, sockaddr* address, socklen_t* length) {
  if (Fails(kAccept)) return -1;
  return accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

inline int Connect(int fd, const sockaddr* address, socklen_t length) {
  if (Fails(kConnect)) return -1;
  return connect(fd, address, length);
}

inline ssize_t Recv(int fd, void* to, size_t length) {
  if (Fails(kRecv)) return -1;
  return recv(fd, to, Cap(kRecv, length), 0);
}

inline ssize_t Send(int fd, const void* from, size_t length) {
  if (Fails(kSend)) return -1;
  return send(fd, from, Cap(kSend, length), MSG_NOSIGNAL);
}

inline ssize_t SendParts(int fd, iovec* parts, size_t count) {
  if (Fails(kSend)) return -1;
#ifdef AMBIT_IO_FAULTS
  size_t capped = Cap(kSend, parts[0].iov_len);
  if (capped < parts[0].iov_len) return send(fd, parts[0].iov_base, capped, MSG_NOSIGNAL);
#endif
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  return sendmsg(fd, &message, MSG_NOSIGNAL);
}

inline int EpollCtl(int epoll, int operation, int fd, epoll_event* event) {
  if (operation == EPOLL_CTL_ADD && Fails(kEpollCtl)) return -1;
  return epoll_ctl(epoll, operation, fd, event);
}

inline int Socket(int family, int type) {
  if (Fails(kSocket)) return -1;
  return socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

}  // namespace ambit_io::sys
