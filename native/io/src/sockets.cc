// Listening, accepting and connecting: where an entry of the table begins.
#include <netinet/tcp.h>

#include <algorithm>

#include "engine.h"
#include "limits.h"

namespace ambit_io {

// --- listening

int32_t Engine::Listen(int fd, uint32_t most, std::unique_ptr<ServerTls> tls) {
  auto made = std::make_shared<Listener>();
  made->fd = fd;
  made->most = most;
  made->tls = std::move(tls);
  size_t at = free_listeners_.empty() ? listeners_.size() : static_cast<size_t>(free_listeners_.back());
  made->id = static_cast<int32_t>(at);
  int on = 1;
  // Accepted sockets inherit it; fails on unix sockets, which need none.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (!Watch(fd, kListenerKey | at, EPOLLIN | EPOLLEXCLUSIVE)) {
    int error = errno;
    close(fd);
    return -error;
  }
  made->listening = true;
  if (at == listeners_.size()) {
    listeners_.emplace_back();
  } else {
    free_listeners_.pop_back();
  }
  listeners_[at] = std::move(made);
  open_listeners_++;
  return static_cast<int32_t>(at);
}

Listener* Engine::listener(int32_t id) {
  if (id < 0 || static_cast<size_t>(id) >= listeners_.size()) return nullptr;
  return listeners_[static_cast<size_t>(id)].get();
}

int Engine::StopListening(int32_t id) {
  Listener* found = listener(id);
  if (found == nullptr) return -EBADF;
  if (found->listening) epoll_ctl(epoll_, EPOLL_CTL_DEL, found->fd, nullptr);
  close(found->fd);
  found->fd = -1;
  found->listening = false;
  // Its connections keep the object (and its ticket keys) until they are gone.
  listeners_[static_cast<size_t>(id)] = nullptr;
  gone_listeners_.push_back(id);
  if (!in_turn_) Reap();
  open_listeners_--;
  return 0;
}

int Engine::PauseListening(int32_t id, bool paused) {
  Listener* found = listener(id);
  if (found == nullptr) return -EBADF;
  if (paused && found->listening) {
    epoll_ctl(epoll_, EPOLL_CTL_DEL, found->fd, nullptr);
    found->listening = false;
  } else if (!paused && !found->listening) {
    if (!Watch(found->fd, kListenerKey | static_cast<uint32_t>(id), EPOLLIN | EPOLLEXCLUSIVE)) return -errno;
    found->listening = true;
  }
  return 0;
}

void Engine::Accept(Listener* from) {
  for (int i = 0; i < kAcceptMost && Room(); i++) {
    int fd = sys::Accept(from->fd, nullptr, nullptr);
    if (fd < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      // The connection went away in the queue; the next may be well.
      if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO) continue;
      // No descriptors or memory: the caller stops accepting for a while, else a
      // level-triggered set would spin.
      Emit(kAcceptFailed, from->id, errno, 0);
      return;
    }
    Conn* conn = from->open < from->most ? NewConn() : nullptr;
    bool watched = conn != nullptr && Watch(fd, static_cast<uint32_t>(conn->id), kEdges);
    if (!watched) {
      from->refused++;
      linger reset{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
      close(fd);
      if (conn != nullptr) {
        conn->phase = Phase::kFree;
        free_.push_back(conn->id);
        open_connections_--;
      }
      continue;
    }
    conn->fd = fd;
    conn->server = true;
    conn->listener = listeners_[static_cast<size_t>(from->id)];
    conn->phase = Phase::kOpen;
    conn->was_open = true;
    if (from->tls) {
      conn->phase = Phase::kHandshake;
      conn->was_open = false;
      conn->tls = TlsState::Server(from->tls.get());
    }
    from->open++;
    Stamp(conn);
    Emit(kAccepted, conn->id, from->id, 0);
  }
}

// --- connecting

Conn* Engine::NewConn() {
  int32_t id = 0;
  if (!free_.empty()) {
    id = free_.back();
    free_.pop_back();
  } else {
    if (conns_.size() >= shared_.connections) return nullptr;
    id = static_cast<int32_t>(conns_.size());
    conns_.push_back(std::make_unique<Conn>());
  }
  auto& slot = conns_[static_cast<size_t>(id)];
  *slot = Conn{};
  slot->id = id;
  shared_.flags[id] = 0;
  shared_.pending[id] = 0;
  open_connections_++;
  return slot.get();
}

Conn* Engine::connection(int32_t id) {
  if (id < 0 || static_cast<size_t>(id) >= conns_.size()) return nullptr;
  Conn* conn = conns_[static_cast<size_t>(id)].get();
  return conn->phase == Phase::kFree ? nullptr : conn;
}

int32_t Engine::Connect(int fd, const sockaddr* address, socklen_t length, std::unique_ptr<TlsState> tls) {
  Conn* conn = NewConn();
  if (conn == nullptr) {
    close(fd);
    return -EMFILE;
  }
  conn->fd = fd;
  conn->tls = std::move(tls);
  conn->tcp = address->sa_family != AF_UNIX;
  int on = 1;
  if (conn->tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  int result = sys::Connect(fd, address, length);
  int error = result == 0 || errno == EINPROGRESS ? 0 : errno;
  if (error == 0 && !Watch(fd, static_cast<uint32_t>(conn->id), kEdges)) error = errno;
  if (error != 0) {
    // Perhaps the peer has taken it already: it shall see a reset, not a clean end.
    linger reset{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
    conn->fd = -1;
    conn->phase = Phase::kFree;
    conn->tls.reset();
    free_.push_back(conn->id);
    open_connections_--;
    return -error;
  }
  conn->phase = Phase::kConnecting;
  Stamp(conn);
  return conn->id;
}

void Engine::OnConnected(Conn* conn) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
  if (error != 0) {
    Fail(conn, error);
    return;
  }
  if (!Room()) {
    // Told in the next round: the edge is spent, so it is remembered as a late event.
    Late(kConnected, conn->id, 0, 0);
  } else {
    Emit(kConnected, conn->id, 0, 0);
  }
  conn->phase = conn->tls ? Phase::kConnected : Phase::kOpen;
  conn->was_open = !conn->tls;
  Stamp(conn);
  // What came along with the connection is read in the next round, when the owner knows it is
  // open.
  conn->readable = true;
  Ready(conn);
}

int Engine::Detach(int32_t id) {
  Conn* conn = connection(id);
  if (conn == nullptr || conn->phase != Phase::kOpen) return -EBADF;
  if (conn->tls || !conn->out.empty() || conn->dirty || conn->want_end || conn->peer_ended) return -EBUSY;
  int fd = conn->fd;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  conn->fd = -1;
  conn->phase = Phase::kGone;
  if (conn->listener) conn->listener->open--;
  conn->listener = nullptr;
  if (conn->queued) ready_.erase(std::remove(ready_.begin(), ready_.end(), conn), ready_.end());
  conn->queued = false;
  open_connections_--;
  gone_.push_back(id);
  if (!in_turn_) Reap();
  return fd;
}

}  // namespace ambit_io
