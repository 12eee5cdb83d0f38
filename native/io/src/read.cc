// From the socket into the arena, through TLS where there is TLS, and the handshakes before it.
#include <openssl/err.h>

#include <algorithm>

#include "engine.h"
#include "limits.h"

namespace ambit_io {

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
  // A command given before may still name it.
  if (id >= 0 && static_cast<size_t>(id) < contexts_.size()) gone_contexts_.push_back(id);
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

}  // namespace ambit_io
