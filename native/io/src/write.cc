// What a turn asked to write, gathered per connection, encrypted where there is TLS, sent at once; what waits, and the
// end.
#include <openssl/err.h>

#include <algorithm>

#include "engine.h"
#include "limits.h"

namespace ambit_io {

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
      ERR_clear_error();
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

}  // namespace ambit_io
