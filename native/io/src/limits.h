// Bounds of one turn. Must not live here: bounds of memory that JavaScript gives (agent/io/native/engine.ts).
#pragma once
#include <sys/epoll.h>

#include <cstddef>
#include <cstdint>

namespace ambit_io {

// Events taken from the kernel at once.
inline constexpr int kBatch = 256;
// Rounds of one turn while there is work, so that what a turn caused (drains, ends) does not wait
// for the event loop.
inline constexpr int kRounds = 4;
// Bytes read from one connection in a round: with the ready list behind it, no connection starves
// another.
inline constexpr size_t kReadMost = 65536;
// A round with less room left in the arena reads no further connection; a TLS record must fit.
inline constexpr size_t kReadLeast = 16384 + 512;
// Connections taken from one listener in a round.
inline constexpr int kAcceptMost = 64;
// Ranges given to the kernel in one call.
inline constexpr size_t kParts = 64;
// Plaintext encrypted before the kernel is asked to take it.
inline constexpr size_t kEncryptMost = 131072;
inline constexpr size_t kRecord = 16384;

inline constexpr uint64_t kListenerKey = 1ull << 32;

// Edges: one epoll_ctl in a connection's life, none for pausing, resuming or waiting to write.
inline constexpr uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

}  // namespace ambit_io
