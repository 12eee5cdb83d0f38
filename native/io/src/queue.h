// Bytes a socket has not taken yet, in chunks of one size that are kept for reuse. Must not live
// here: sockets.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "sys.h"

namespace ambit_io {

struct Chunk {
  static constexpr size_t kSize = 16384 - 32;
  Chunk* next;
  uint32_t from;
  uint32_t to;
  uint8_t bytes[kSize];
};

// Free chunks of one engine. Bound: 256 are kept (4 MiB), the rest goes back to the allocator.
class ChunkPool {
 public:
  ~ChunkPool() {
    while (free_ != nullptr) {
      Chunk* next = free_->next;
      std::free(free_);
      free_ = next;
    }
  }

  Chunk* Take() {
    Chunk* chunk = free_;
    if (chunk != nullptr) {
      free_ = chunk->next;
      kept_--;
    } else {
      if (sys::Fails(sys::kAlloc)) return nullptr;
      chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk)));
      if (chunk == nullptr) return nullptr;
    }
    live++;
    chunk->next = nullptr;
    chunk->from = chunk->to = 0;
    return chunk;
  }

  void Give(Chunk* chunk) {
    live--;
    if (kept_ >= kKeep) {
      std::free(chunk);
      return;
    }
    chunk->next = free_;
    free_ = chunk;
    kept_++;
  }

  // Chunks in queues now: zero when nothing is pending anywhere.
  long live = 0;

 private:
  static constexpr int kKeep = 256;
  Chunk* free_ = nullptr;
  int kept_ = 0;
};

class Queue {
 public:
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // False when there is no memory: the caller must cut the connection, since bytes are
  // missing.
  bool Append(ChunkPool& pool, const uint8_t* bytes, size_t length) {
    while (length > 0) {
      if (last_ == nullptr || last_->to == Chunk::kSize) {
        Chunk* chunk = pool.Take();
        if (chunk == nullptr) return false;
        if (last_ == nullptr) {
          first_ = chunk;
        } else {
          last_->next = chunk;
        }
        last_ = chunk;
      }
      size_t room = Chunk::kSize - last_->to;
      size_t take = length < room ? length : room;
      memcpy(last_->bytes + last_->to, bytes, take);
      last_->to += static_cast<uint32_t>(take);
      bytes += take;
      length -= take;
      size_ += take;
    }
    return true;
  }

  // Up to `most` ranges of the queue's head.
  size_t Parts(iovec* parts, size_t most) const {
    size_t count = 0;
    for (Chunk* chunk = first_; chunk != nullptr && count < most; chunk = chunk->next) {
      if (chunk->to > chunk->from) parts[count++] = {chunk->bytes + chunk->from, chunk->to - chunk->from};
    }
    return count;
  }

  void Drop(ChunkPool& pool, size_t length) {
    size_ -= length;
    while (length > 0) {
      Chunk* chunk = first_;
      size_t held = chunk->to - chunk->from;
      if (length < held) {
        chunk->from += static_cast<uint32_t>(length);
        return;
      }
      length -= held;
      first_ = chunk->next;
      if (first_ == nullptr) last_ = nullptr;
      pool.Give(chunk);
    }
    if (size_ == 0 && first_ != nullptr) Clear(pool);
  }

  void Clear(ChunkPool& pool) {
    while (first_ != nullptr) {
      Chunk* next = first_->next;
      pool.Give(first_);
      first_ = next;
    }
    last_ = nullptr;
    size_ = 0;
  }

 private:
  Chunk* first_ = nullptr;
  Chunk* last_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ambit_io
