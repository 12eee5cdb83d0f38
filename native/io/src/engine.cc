// Turns: what comes first, how commands are carried out, how a connection ends. Reading is in read.cc, writing in
// write.cc, sockets that begin in sockets.cc.
#include "engine.h"

#include <time.h>

#include <algorithm>

#include "limits.h"

namespace ambit_io {

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
  for (int32_t id : gone_contexts_) contexts_[static_cast<size_t>(id)] = nullptr;
  gone_contexts_.clear();
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
  free_listeners_.insert(free_listeners_.end(), gone_listeners_.begin(), gone_listeners_.end());
  gone_listeners_.clear();
}

}  // namespace ambit_io
