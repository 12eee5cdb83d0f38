#include "engine.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <time.h>

#include <algorithm>

namespace ambit_io {

namespace {

// Events taken from the kernel at once.
constexpr int kBatch = 256;
// Rounds of one turn while there is work, so that what a turn caused (drains, ends) does not wait
// for the event loop.
constexpr int kRounds = 4;
// Bytes read from one connection in a round: with the ready list behind it, no connection starves
// another.
constexpr size_t kReadMost = 65536;
// A round with less room left in the arena reads no further connection; a TLS record must fit.
constexpr size_t kReadLeast = 16384 + 512;
// Connections taken from one listener in a round.
constexpr int kAcceptMost = 64;
// Ranges given to the kernel in one call.
constexpr size_t kParts = 64;
// Plaintext encrypted before the kernel is asked to take it.
constexpr size_t kEncryptMost = 131072;
constexpr size_t kRecord = 16384;

constexpr uint64_t kListenerKey = 1ull << 32;

// Edges: one epoll_ctl in a connection's life, none for pausing, resuming or waiting to write.
constexpr uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

}  // namespace

Engine::Engine(const Shared& shared, Sink* sink) : shared_(shared), sink_(sink), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  stage_.resize(kReadMost + 2 * kReadLeast);
  buffers_.out.reserve(2 * kEncryptMost);
  Clock();
}

Engine::~Engine() {
  for (auto& conn : conns_) {
    if (conn->phase != Phase::kFree && conn->fd >= 0) close(conn->fd);
    conn->out.Clear(pool_);
    if (conn->tls) conn->tls->cipher.Clear(pool_);
  }
  for (auto& listener : listeners_) {
    if (listener && listener->fd >= 0) close(listener->fd);
  }
  if (epoll_ >= 0) close(epoll_);
}

void Engine::Clock() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  now_ = static_cast<uint32_t>(now.tv_sec * 10 + now.tv_nsec / 100000000);
}

Statistics Engine::statistics() const {
  Statistics all = counts_;
  all.connections = open_connections_;
  all.listeners = open_listeners_;
  all.chunks = pool_.live;
  all.tls = TlsLive();
  return all;
}

// --- turns

void Engine::Turn() {
  if (in_turn_) return;
  in_turn_ = true;
  counts_.turns++;
  Clock();
  epoll_event found[kBatch];
  for (int round = 0; round < kRounds; round++) {
    event_count_ = 0;
    arena_used_ = 0;
    size_t told = 0;
    for (; told < late_.size() && Room(); told++) {
      const LateEvent& late = late_[told];
      Emit(late.word[0], late.word[1], late.word[2], late.word[3]);
      if (late.word[0] == kClosed) gone_.push_back(late.word[1]);
    }
    late_.erase(late_.begin(), late_.begin() + static_cast<long>(told));
    // What was left over from before comes first, then what is new: nobody waits for
    // longer than one round of the others.
    reading_.swap(ready_);
    for (Conn* conn : reading_) conn->queued = false;
    for (Conn* conn : reading_) Read(conn);
    reading_.clear();
    int count = epoll_wait(epoll_, found, kBatch, 0);
    for (int i = 0; i < count; i++) OnEpoll(found[i].data.u64, found[i].events);
    if (event_count_ > 0) {
      counts_.events += static_cast<long>(event_count_);
      size_t commands = sink_->Deliver(event_count_);
      Flush(commands);
    }
    Reap();
    if (late_.empty() && ready_.empty() && count < kBatch) break;
  }
  in_turn_ = false;
  if (!late_.empty() || !ready_.empty()) sink_->Wake();
}

void Engine::Flush(size_t commands) {
  for (size_t i = 0; i < commands; i++) Run(shared_.commands + i * 4);
  // Pump may cut connections but never adds to this list.
  for (Conn* conn : dirty_) {
    conn->dirty = false;
    if (conn->phase == Phase::kOpen) Pump(conn);
    conn->first_segment = conn->last_segment = -1;
  }
  dirty_.clear();
  segments_.clear();
  if (!in_turn_ && (!late_.empty() || !ready_.empty())) sink_->Wake();
}

void Engine::Run(const int32_t* command) {
  Conn* conn = connection(command[1]);
  if (conn == nullptr || conn->phase == Phase::kGone) return;
  switch (command[0] & 0xff) {
    case kWrite: {
      if (conn->phase != Phase::kOpen || conn->want_end || conn->send_error != 0) return;
      int region = command[0] >> 8;
      auto from = static_cast<size_t>(static_cast<uint32_t>(command[2]));
      auto to = static_cast<size_t>(static_cast<uint32_t>(command[3]));
      if (region >= kRegions || from >= to || to > shared_.region_size[region]) return;
      const uint8_t* bytes = shared_.region[region] + from;
      auto index = static_cast<int32_t>(segments_.size());
      Segment* last = conn->last_segment < 0 ? nullptr : &segments_[static_cast<size_t>(conn->last_segment)];
      if (last != nullptr && last->bytes + last->length == bytes) {
        last->length += to - from;
      } else {
        if (last != nullptr) last->next = index;
        segments_.push_back({bytes, to - from, -1});
        if (conn->first_segment < 0) conn->first_segment = index;
        conn->last_segment = index;
      }
      break;
    }
    case kEnd:
      if (conn->phase != Phase::kOpen) return;
      conn->want_end = true;
      break;
    case kAbort:
      Fail(conn, kCut);
      return;
    case kResume:
      if (conn->readable || conn->hung_up) Ready(conn);
      return;
    case kContext:
      GiveContext(conn, command[2]);
      return;
    case kRefuse:
      if (!conn->tls || conn->phase != Phase::kHandshake) return;
      conn->tls->refused = true;
      conn->tls->hello_pending = false;
      Ready(conn);
      return;
    case kAllow:
      if (conn->phase != Phase::kVerdict) return;
      conn->phase = Phase::kOpen;
      conn->was_open = true;
      conn->readable = true;
      Ready(conn);
      return;
    default:
      return;
  }
  if (!conn->dirty) {
    conn->dirty = true;
    dirty_.push_back(conn);
  }
}

void Engine::Emit(int32_t kind, int32_t id, int32_t a, int32_t b) {
  int32_t* event = shared_.events + event_count_ * 4;
  event[0] = kind;
  event[1] = id;
  event[2] = a;
  event[3] = b;
  event_count_++;
}

void Engine::Late(int32_t kind, int32_t id, int32_t a, int32_t b) { late_.push_back({{kind, id, a, b}}); }

// Asks for the socket's state anew. Only an injected EAGAIN needs it: after a real one the kernel reports the next
// edge.
void Engine::Rearm(Conn* conn) {
  epoll_event event{};
  event.events = kEdges;
  event.data.u64 = static_cast<uint32_t>(conn->id);
  epoll_ctl(epoll_, EPOLL_CTL_MOD, conn->fd, &event);
}

void Engine::Ready(Conn* conn) {
  if (conn->queued) return;
  conn->queued = true;
  ready_.push_back(conn);
}

bool Engine::Watch(int fd, uint64_t key, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  return sys::EpollCtl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

void Engine::OnEpoll(uint64_t key, uint32_t events) {
  auto index = static_cast<uint32_t>(key);
  if ((key & kListenerKey) != 0) {
    Listener* from = listener(static_cast<int32_t>(index));
    if (from != nullptr && from->listening) Accept(from);
    return;
  }
  Conn* conn = connection(static_cast<int32_t>(index));
  if (conn == nullptr || conn->phase == Phase::kGone) return;
  if (conn->phase == Phase::kConnecting) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) OnConnected(conn);
    return;
  }
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) conn->hung_up = true;
  if ((events & EPOLLOUT) != 0 && !conn->writable) {
    conn->writable = true;
    Stamp(conn);
    if (conn->phase == Phase::kOpen) {
      Pump(conn);
    } else if (conn->tls && conn->tls->ssl != nullptr) {
      SendCipher(conn);
    }
    if (conn->phase == Phase::kGone) return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    conn->readable = true;
    if ((events & EPOLLERR) != 0 && (shared_.flags[conn->id] & kPaused) != 0 && conn->phase == Phase::kOpen) {
      // A reset does not wait for a paused owner: its exchange is over.
      int error = 0;
      socklen_t length = sizeof(error);
      getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length);
      Fail(conn, error == 0 ? ECONNRESET : error);
      return;
    }
    Read(conn);
  }
}

// --- listening

int32_t Engine::Listen(int fd, uint32_t most, std::unique_ptr<ServerTls> tls) {
  auto made = std::make_shared<Listener>();
  made->fd = fd;
  made->most = most;
  made->tls = std::move(tls);
  size_t at = 0;
  while (at < listeners_.size() && listeners_[at] != nullptr) at++;
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
  if (at == listeners_.size()) listeners_.emplace_back();
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

// --- reading

void Engine::Read(Conn* conn) {
  if (conn->peer_ended) {
    conn->readable = false;
    // After both ends are seen nothing more is read, but a reset still ends the
    // connection.
    if (conn->phase == Phase::kOpen && conn->hung_up && !conn->fin_sent) {
      int error = 0;
      socklen_t length = sizeof(error);
      getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length);
      if (error != 0) Fail(conn, error);
    }
    return;
  }
  switch (conn->phase) {
    case Phase::kHandshake:
      Handshake(conn);
      return;
    case Phase::kOpen:
      break;
    default:
      return;
  }
  if ((shared_.flags[conn->id] & kPaused) != 0) {
    shared_.flags[conn->id] |= kWaiting;
    return;
  }
  size_t room = shared_.region_size[kArena] - arena_used_;
  // Two events at most: bytes, and the end.
  if (room < kReadLeast || event_count_ + 2 > shared_.event_capacity) {
    Ready(conn);
    return;
  }
  if (conn->tls) {
    ReadTls(conn, room);
  } else {
    ReadPlain(conn, room);
  }
}

void Engine::ReadPlain(Conn* conn, size_t room) {
  size_t want = std::min(room, kReadMost);
  counts_.reads++;
  ssize_t got = sys::Recv(conn->fd, shared_.region[kArena] + arena_used_, want);
  if (got > 0) {
    auto start = static_cast<int32_t>(arena_used_);
    arena_used_ += static_cast<size_t>(got);
    Emit(kRead, conn->id, start, static_cast<int32_t>(arena_used_));
    Stamp(conn);
    // A short read emptied the socket, unless the peer's FIN stands behind it.
    if (static_cast<size_t>(got) == want || conn->hung_up || conn->send_error != 0 || sys::Faked()) {
      Ready(conn);
    } else {
      conn->readable = false;
    }
    return;
  }
  if (got == 0) {
    if (conn->send_error != 0) {
      Fail(conn, conn->send_error);
    } else {
      PeerEnd(conn);
    }
    return;
  }
  if (errno == EINTR) {
    Ready(conn);
    return;
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    conn->readable = false;
    if (sys::Faked()) Rearm(conn);
    if (conn->send_error != 0) Fail(conn, conn->send_error);
    return;
  }
  Fail(conn, errno);
}

// Fills the stage with what was held and what the socket has; buffers_ then stands over it. False
// when the connection failed.
bool Engine::Stage(Conn* conn, size_t most) {
  TlsState* tls = conn->tls.get();
  size_t held = std::min(tls->held.size(), stage_.size());
  if (held > 0) memcpy(stage_.data(), tls->held.data(), held);
  tls->held.erase(tls->held.begin(), tls->held.begin() + static_cast<long>(held));
  size_t got = 0;
  if (!tls->ended && conn->readable && stage_.size() - held >= 1 && tls->held.empty()) {
    size_t want = std::min(most, stage_.size() - held);
    counts_.reads++;
    ssize_t result = sys::Recv(conn->fd, stage_.data() + held, want);
    if (result > 0) {
      got = static_cast<size_t>(result);
      Stamp(conn);
      if (got < want && !conn->hung_up && !sys::Faked()) conn->readable = false;
    } else if (result == 0) {
      tls->ended = true;
      conn->readable = false;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      conn->readable = false;
      if (sys::Faked()) Rearm(conn);
    } else if (errno != EINTR) {
      Fail(conn, errno);
      return false;
    }
  }
  buffers_.in = stage_.data();
  buffers_.in_left = held + got;
  buffers_.in_ended = tls->ended && tls->held.empty();
  return true;
}

void Engine::ReadTls(Conn* conn, size_t room) {
  TlsState* tls = conn->tls.get();
  if (!Stage(conn, std::min(room, kReadMost))) return;
  ERR_clear_error();
  size_t start = arena_used_;
  size_t budget = std::min(room, kReadMost);
  bool again = false;
  int32_t failure = 0;
  bool ended = false;
  for (;;) {
    size_t left = budget - (arena_used_ - start);
    if (left < kRecord) {
      again = buffers_.in_left > 0 || SSL_has_pending(tls->ssl) == 1 || conn->readable;
      break;
    }
    int got = SSL_read(tls->ssl, shared_.region[kArena] + arena_used_, static_cast<int>(left));
    if (got > 0) {
      arena_used_ += static_cast<size_t>(got);
      continue;
    }
    int why = SSL_get_error(tls->ssl, got);
    if (why == SSL_ERROR_ZERO_RETURN) {
      ended = true;
    } else if (why != SSL_ERROR_WANT_READ) {
      failure = tls->ended ? kTruncated : kTls;
      conn->error = TlsError(tls);
    }
    break;
  }
  if (arena_used_ > start) {
    Emit(kRead, conn->id, static_cast<int32_t>(start), static_cast<int32_t>(arena_used_));
  }
  if (buffers_.in_left > 0 && !ended && failure == 0) {
    tls->held.insert(tls->held.begin(), buffers_.in, buffers_.in + buffers_.in_left);
  }
  // A key update or an alert answered from within SSL_read.
  if (!buffers_.out.empty() && !SendCipher(conn)) return;
  if (failure != 0) {
    Fail(conn, failure);
    return;
  }
  if (ended) {
    if (conn->send_error != 0) {
      Fail(conn, conn->send_error);
    } else {
      PeerEnd(conn);
    }
    return;
  }
  if (again || conn->readable || !tls->held.empty()) {
    Ready(conn);
  } else if (conn->send_error != 0) {
    Fail(conn, conn->send_error);
  }
}

void Engine::PeerEnd(Conn* conn) {
  conn->peer_ended = true;
  conn->readable = false;
  Stamp(conn);
  Emit(kEnded, conn->id, 0, 0);
  CloseIfDone(conn);
}

// --- TLS handshakes

void Engine::Handshake(Conn* conn) {
  TlsState* tls = conn->tls.get();
  if (tls->hello_pending) return;  // reading goes on when the certificate is there
  if (event_count_ + 1 > shared_.event_capacity) {
    Ready(conn);
    return;
  }
  if (tls->ssl == nullptr && !tls->Start(&buffers_, &conn->error)) {
    Fail(conn, kTls);
    return;
  }
  if (!Stage(conn, kReadMost)) return;
  ERR_clear_error();
  int result = SSL_do_handshake(tls->ssl);
  int why = result == 1 ? SSL_ERROR_NONE : SSL_get_error(tls->ssl, result);
  if (buffers_.in_left > 0) tls->held.insert(tls->held.begin(), buffers_.in, buffers_.in + buffers_.in_left);
  if (why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_CLIENT_HELLO_CB) {
    conn->error = tls->ended && ERR_peek_last_error() == 0 ? "the peer closed the connection during the handshake"
                                                           : TlsError(tls);
  }
  if (!buffers_.out.empty() && !SendCipher(conn)) return;
  switch (why) {
    case SSL_ERROR_NONE:
      if (!PeerStillValid(tls)) {
        conn->error = "the peer's certificate is no longer valid";
        Fail(conn, kTls);
        return;
      }
      conn->phase = Phase::kVerdict;
      Emit(kSecure, conn->id, 0, 0);
      return;
    case SSL_ERROR_WANT_CLIENT_HELLO_CB:
      tls->hello_pending = true;
      Emit(kHello, conn->id, 0, 0);
      return;
    case SSL_ERROR_WANT_READ:
      if (tls->ended) {
        conn->error = "the peer closed the connection during the handshake";
        Fail(conn, kHandshakeClosed);
      } else if (conn->readable) {
        Ready(conn);
      }
      return;
    default: {
      // The alert must reach the peer: unread bytes would turn the close into a reset
      // that overtakes it.
      uint8_t rest[16384];
      while (sys::Recv(conn->fd, rest, sizeof(rest)) > 0) {
      }
      shutdown(conn->fd, SHUT_WR);
      Fail(conn, kTls);
    }
  }
}

int32_t Engine::AddContext(std::shared_ptr<TlsContext> context) {
  size_t at = 0;
  while (at < contexts_.size() && contexts_[at] != nullptr) at++;
  if (at == contexts_.size()) contexts_.emplace_back();
  contexts_[at] = std::move(context);
  return static_cast<int32_t>(at);
}

void Engine::DropContext(int32_t id) {
  if (id >= 0 && static_cast<size_t>(id) < contexts_.size()) contexts_[static_cast<size_t>(id)] = nullptr;
}

void Engine::GiveContext(Conn* conn, int32_t id) {
  TlsState* tls = conn->tls.get();
  bool waits = conn->phase == Phase::kConnected || (conn->phase == Phase::kHandshake && tls->hello_pending);
  if (tls == nullptr || !waits) return;
  auto context = id >= 0 && static_cast<size_t>(id) < contexts_.size() ? contexts_[static_cast<size_t>(id)] : nullptr;
  if (context == nullptr || !tls->Use(context, &conn->error)) {
    Fail(conn, kTls);
    return;
  }
  conn->phase = Phase::kHandshake;
  tls->hello_pending = false;
  // Goes on in the next round, where there is room for what it has to tell.
  Ready(conn);
}

// --- writing

// Sends what OpenSSL made; what the kernel does not take is queued. False when the connection
// failed.
bool Engine::SendCipher(Conn* conn) {
  TlsState* tls = conn->tls.get();
  auto& made = buffers_.out;
  size_t sent = 0;
  bool failed = false;
  while (!tls->cipher.empty() && conn->writable) {
    iovec parts[kParts];
    size_t count = tls->cipher.Parts(parts, kParts);
    counts_.sends++;
    ssize_t took = sys::SendParts(conn->fd, parts, count);
    if (took > 0) {
      tls->cipher.Drop(pool_, static_cast<size_t>(took));
      Stamp(conn);
    } else if (took < 0 && errno == EINTR) {
      continue;
    } else if (took < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      conn->writable = false;
      if (sys::Faked()) Rearm(conn);
    } else {
      failed = true;
      break;
    }
  }
  while (!failed && sent < made.size() && conn->writable && tls->cipher.empty()) {
    counts_.sends++;
    ssize_t took = sys::Send(conn->fd, made.data() + sent, made.size() - sent);
    if (took > 0) {
      sent += static_cast<size_t>(took);
      Stamp(conn);
    } else if (took < 0 && errno == EINTR) {
      continue;
    } else if (took < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      conn->writable = false;
      if (sys::Faked()) Rearm(conn);
    } else {
      failed = true;
      break;
    }
  }
  if (failed) {
    int error = errno;
    made.clear();
    SendFailed(conn, error);
    return conn->phase != Phase::kGone;
  }
  bool kept = sent == made.size() || tls->cipher.Append(pool_, made.data() + sent, made.size() - sent);
  made.clear();
  if (!kept) {
    Fail(conn, ENOMEM);
    return false;
  }
  return true;
}

void Engine::Pump(Conn* conn) {
  if (conn->send_error != 0) return;
  if (conn->tls) {
    PumpTls(conn);
  } else {
    PumpPlain(conn);
  }
  if (conn->phase == Phase::kOpen) Settle(conn);
}

void Engine::PumpPlain(Conn* conn) {
  while (conn->writable) {
    iovec parts[kParts];
    size_t count = conn->out.Parts(parts, kParts);
    bool queued = count > 0;
    int32_t at = conn->first_segment;
    if (!queued) {
      for (; at >= 0 && count < kParts; count++) {
        const Segment& segment = segments_[static_cast<size_t>(at)];
        parts[count] = {const_cast<uint8_t*>(segment.bytes), segment.length};
        at = segment.next;
      }
    }
    if (count == 0) break;
    counts_.sends++;
    ssize_t took =
        count == 1 ? sys::Send(conn->fd, parts[0].iov_base, parts[0].iov_len) : sys::SendParts(conn->fd, parts, count);
    if (took < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        SendFailed(conn, errno);
        return;
      }
      conn->writable = false;
      if (sys::Faked()) Rearm(conn);
      break;
    }
    Stamp(conn);
    auto sent = static_cast<size_t>(took);
    if (queued) {
      conn->out.Drop(pool_, sent);
    } else {
      while (sent > 0) {
        Segment& segment = segments_[static_cast<size_t>(conn->first_segment)];
        size_t take = std::min(sent, segment.length);
        segment.bytes += take;
        segment.length -= take;
        sent -= take;
        if (segment.length > 0) break;
        conn->first_segment = segment.next;
      }
    }
  }
  for (int32_t at = conn->first_segment; at >= 0; at = segments_[static_cast<size_t>(at)].next) {
    const Segment& segment = segments_[static_cast<size_t>(at)];
    if (segment.length > 0 && !conn->out.Append(pool_, segment.bytes, segment.length)) {
      Fail(conn, ENOMEM);
      return;
    }
  }
  conn->first_segment = conn->last_segment = -1;
}

void Engine::PumpTls(Conn* conn) {
  TlsState* tls = conn->tls.get();
  if (!SendCipher(conn)) return;
  uint8_t record[kRecord];
  while (conn->writable && tls->cipher.empty() && conn->send_error == 0) {
    // Gathers small ranges into full records; a long range is encrypted where it lies.
    size_t made = 0;
    bool any = false;
    while (made < kEncryptMost) {
      const uint8_t* bytes = nullptr;
      size_t length = 0;
      iovec head{};
      bool queued = conn->out.Parts(&head, 1) > 0;
      if (queued) {
        bytes = static_cast<const uint8_t*>(head.iov_base);
        length = head.iov_len;
      } else if (conn->first_segment >= 0) {
        bytes = segments_[static_cast<size_t>(conn->first_segment)].bytes;
        length = segments_[static_cast<size_t>(conn->first_segment)].length;
      } else {
        break;
      }
      const uint8_t* source = bytes;
      size_t take = std::min(length, kEncryptMost - made);
      if (length < kRecord) {
        take = 0;
        // Copy ranges one after the other until the record is full or there
        // are none.
        for (;;) {
          size_t part = std::min(length, kRecord - take);
          memcpy(record + take, bytes, part);
          take += part;
          if (queued) {
            conn->out.Drop(pool_, part);
            queued = conn->out.Parts(&head, 1) > 0;
          } else {
            Segment& segment = segments_[static_cast<size_t>(conn->first_segment)];
            segment.bytes += part;
            segment.length -= part;
            if (segment.length == 0) conn->first_segment = segment.next;
          }
          if (take == kRecord) break;
          if (queued) {
            bytes = static_cast<const uint8_t*>(head.iov_base);
            length = head.iov_len;
          } else if (conn->first_segment >= 0) {
            bytes = segments_[static_cast<size_t>(conn->first_segment)].bytes;
            length = segments_[static_cast<size_t>(conn->first_segment)].length;
          } else {
            break;
          }
        }
        source = record;
      }
      ERR_clear_error();
      int wrote = SSL_write(tls->ssl, source, static_cast<int>(take));
      if (wrote != static_cast<int>(take)) {
        conn->error = TlsError(tls);
        buffers_.out.clear();
        Fail(conn, kTls);
        return;
      }
      any = true;
      made += take;
      if (source != record) {
        if (queued) {
          conn->out.Drop(pool_, take);
        } else {
          Segment& segment = segments_[static_cast<size_t>(conn->first_segment)];
          segment.bytes += take;
          segment.length -= take;
          if (segment.length == 0) conn->first_segment = segment.next;
        }
      }
    }
    if (!any) break;
    if (!SendCipher(conn)) return;
  }
  if (conn->send_error != 0) return;
  for (int32_t at = conn->first_segment; at >= 0; at = segments_[static_cast<size_t>(at)].next) {
    const Segment& segment = segments_[static_cast<size_t>(at)];
    if (segment.length > 0 && !conn->out.Append(pool_, segment.bytes, segment.length)) {
      Fail(conn, ENOMEM);
      return;
    }
  }
  conn->first_segment = conn->last_segment = -1;
}

// After a pump: what is pending, the end if it is due, the drain if one is owed.
void Engine::Settle(Conn* conn) {
  if (conn->send_error != 0) return;
  size_t left = conn->out.size() + (conn->tls ? conn->tls->cipher.size() : 0);
  shared_.pending[conn->id] = static_cast<uint32_t>(left);
  if (left > 0) {
    conn->slow = true;
    return;
  }
  if (conn->want_end && !conn->fin_sent) {
    if (conn->tls && !conn->tls->shutdown_sent) {
      conn->tls->shutdown_sent = true;
      ERR_clear_error();
      SSL_shutdown(conn->tls->ssl);
      if (!SendCipher(conn)) return;
      if (!conn->tls->cipher.empty()) return;  // a few bytes of close_notify wait for the next EPOLLOUT
    }
    conn->fin_sent = true;
    shutdown(conn->fd, SHUT_WR);
  }
  if (conn->slow || (shared_.flags[conn->id] & kAsked) != 0) {
    conn->slow = false;
    shared_.flags[conn->id] &= static_cast<uint8_t>(~kAsked);
    Late(kDrained, conn->id, 0, 0);
  }
  CloseIfDone(conn);
}

// The peer takes nothing more. What it sent before that (an early answer, say) is still read,
// unless the owner is not reading.
void Engine::SendFailed(Conn* conn, int error) {
  if (conn->phase != Phase::kOpen || conn->peer_ended || (shared_.flags[conn->id] & kPaused) != 0) {
    Fail(conn, error);
    return;
  }
  conn->send_error = error;
  conn->out.Clear(pool_);
  if (conn->tls) conn->tls->cipher.Clear(pool_);
  conn->first_segment = conn->last_segment = -1;
  shared_.pending[conn->id] = 0;
  conn->readable = true;
  Ready(conn);
}

// --- the end

void Engine::CloseIfDone(Conn* conn) {
  if (conn->phase != Phase::kOpen || !conn->peer_ended || !conn->fin_sent) return;
  Release(conn, false);
  Late(kClosed, conn->id, kCleanEnd, 1);
}

void Engine::Fail(Conn* conn, int32_t why) {
  if (conn->phase == Phase::kGone) return;
  bool was_open = conn->was_open;
  // An alert that was sent before must not be overtaken by a reset.
  Release(conn, !(why == kTls && !was_open));
  Late(kClosed, conn->id, why, was_open ? 1 : 0);
}

void Engine::Release(Conn* conn, bool reset) {
  if (reset) {
    linger now{1, 0};
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  close(conn->fd);
  conn->fd = -1;
  conn->phase = Phase::kGone;
  conn->out.Clear(pool_);
  if (conn->tls) conn->tls->cipher.Clear(pool_);
  conn->tls.reset();
  conn->first_segment = conn->last_segment = -1;
  shared_.pending[conn->id] = 0;
  if (conn->listener) conn->listener->open--;
  conn->listener = nullptr;
  open_connections_--;
}

void Engine::Reap() {
  for (int32_t id : gone_) {
    Conn* conn = conns_[static_cast<size_t>(id)].get();
    if (conn->queued) ready_.erase(std::remove(ready_.begin(), ready_.end(), conn), ready_.end());
    conn->phase = Phase::kFree;
    conn->queued = false;
    conn->error.clear();
    free_.push_back(id);
  }
  gone_.clear();
}

}  // namespace ambit_io
