// Batched I/O: one epoll set, and turns. A turn gathers events and the bytes that came (into one
// arena), hands them over in one call, and then carries out what that call asked for: writes
// grouped per connection and sent once each. It parses nothing and decides nothing: policy, framing
// and deadlines are the caller's. No Node here either (addon.cc), so that a plain program can drive
// it under sanitizers.
#pragma once
#include <netinet/in.h>
#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "queue.h"
#include "tls.h"

namespace ambit_io {

// What a turn hands over, four 32-bit words each: kind, connection (or listener), two arguments.
enum Event : int32_t {
  kAccepted = 1,      // connection, listener
  kConnected = 2,     // connection
  kHello = 3,         // connection: a ClientHello waits for its certificate
  kSecure = 4,        // connection: the handshake is done and waits for the verdict
  kRead = 5,          // connection, start, end in the arena
  kDrained = 6,       // connection
  kEnded = 7,         // connection: the peer ended its direction cleanly
  kClosed = 8,        // connection, errno or a Failure, 1 if it was ever open
  kAcceptFailed = 9,  // listener, errno
};

// Ends that are not an errno; beyond any errno.
enum Failure : int32_t { kCleanEnd = 0, kCut = 10001, kTruncated = 10002, kTls = 10003, kHandshakeClosed = 10004 };

// What the caller asks for, four words each: operation (and memory region), connection, two
// arguments.
enum Operation : int32_t {
  kWrite = 1,    // region << 8; start, end
  kEnd = 2,      // half-close after what is queued
  kAbort = 3,    // RST
  kResume = 4,   // read again: something waited for it
  kContext = 5,  // context; answers kHello, or starts a client's handshake
  kRefuse = 6,   // answers kHello with an alert
  kAllow = 7,    // answers kSecure
};

enum Region : int32_t { kArena = 0, kSlab = 1, kCopies = 2, kRegions = 3 };

// Bits of the flag byte that both sides see.
enum Flag : uint8_t {
  kPaused = 1,   // set by the caller: do not read
  kWaiting = 2,  // set here: there was something to read while paused, so resuming needs a
                 // kResume
  kAsked = 4,    // set by the caller: it saw `pending` above its mark and wants a kDrained
};

// Memory that the caller owns and both sides see. Sizes are fixed for the engine's life.
struct Shared {
  uint8_t* region[kRegions] = {};
  size_t region_size[kRegions] = {};
  int32_t* events = nullptr;  // 4 words each
  size_t event_capacity = 0;
  int32_t* commands = nullptr;
  size_t command_capacity = 0;
  uint32_t* pending = nullptr;  // per connection: bytes accepted and not taken by the kernel
  uint8_t* flags = nullptr;     // per connection
  uint32_t* stamps = nullptr;   // per connection: when bytes last moved, in tenths of a second
                                // of the monotonic clock
  size_t connections = 0;       // bound on connections at once: entries of the three tables above
};

enum class Phase : uint8_t { kFree, kConnecting, kConnected, kHandshake, kVerdict, kOpen, kGone };

struct Listener {
  int32_t id = -1;
  int fd = -1;
  bool listening = false;  // in the epoll set
  uint32_t most = 0;
  uint32_t open = 0;
  uint64_t refused = 0;
  std::unique_ptr<ServerTls> tls;
};

struct Conn {
  int32_t id = -1;
  int fd = -1;
  Phase phase = Phase::kFree;
  bool server = false;
  bool tcp = false;
  bool readable = false;  // an edge was seen that has not been read to its end
  bool queued = false;    // in the ready list
  bool dirty = false;     // has segments or an end of this turn
  bool writable = true;   // false from EAGAIN until the next EPOLLOUT
  bool hung_up = false;   // the peer's FIN or worse was seen
  bool peer_ended = false;
  bool want_end = false;
  bool fin_sent = false;
  bool was_open = false;
  bool slow = false;   // bytes had to wait: a kDrained is owed
  int send_error = 0;  // writing failed; what can still be read is read first
  int32_t first_segment = -1;
  int32_t last_segment = -1;
  Queue out;  // as written; plaintext where there is TLS
  std::shared_ptr<Listener> listener;
  std::unique_ptr<TlsState> tls;
  std::string error;
};

// Receives a turn's events and answers with commands in Shared::commands.
class Sink {
 public:
  virtual ~Sink() = default;
  // `count` events; returns the number of commands.
  virtual size_t Deliver(size_t count) = 0;
  // Work is left although the epoll set may stay silent: call Turn again soon.
  virtual void Wake() = 0;
};

struct Statistics {
  long connections = 0, listeners = 0, chunks = 0, tls = 0, turns = 0, events = 0, reads = 0, sends = 0;
};

class Engine {
 public:
  Engine(const Shared& shared, Sink* sink);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  int epoll_fd() const { return epoll_; }
  // Zero when nothing is open.
  long open() const { return open_connections_ + open_listeners_; }

  // One turn, or a few while there is work. Called when the epoll set is readable, or after
  // Wake.
  void Turn();
  // Carries out commands given outside of a turn.
  void Flush(size_t commands);

  // A bound and listening socket; takes the descriptor. Returns its id or -errno.
  int32_t Listen(int fd, uint32_t most, std::unique_ptr<ServerTls> tls);
  int StopListening(int32_t id);
  int PauseListening(int32_t id, bool paused);
  Listener* listener(int32_t id);

  // Connects `fd` (made here or elsewhere; taken in any case). Returns the connection's id or
  // -errno.
  int32_t Connect(int fd, const sockaddr* address, socklen_t length, std::unique_ptr<TlsState> tls);
  // Gives the descriptor up: a plain socket with nothing queued. Returns it, or -errno.
  int Detach(int32_t id);
  Conn* connection(int32_t id);

  // Certificates by number, for kContext. Dropping one leaves the connections alone that use
  // it.
  int32_t AddContext(std::shared_ptr<TlsContext> context);
  void DropContext(int32_t id);

  Statistics statistics() const;

 private:
  Conn* NewConn();
  void Emit(int32_t kind, int32_t id, int32_t a, int32_t b);
  void Late(int32_t kind, int32_t id, int32_t a, int32_t b);
  bool Room() const { return event_count_ < shared_.event_capacity; }
  bool Watch(int fd, uint64_t key, uint32_t events);
  void Rearm(Conn* conn);
  void Ready(Conn* conn);
  void OnEpoll(uint64_t key, uint32_t events);
  void Accept(Listener* listener);
  void Read(Conn* conn);
  void ReadPlain(Conn* conn, size_t room);
  void ReadTls(Conn* conn, size_t room);
  bool Stage(Conn* conn, size_t most);
  void Handshake(Conn* conn);
  void OnConnected(Conn* conn);
  void GiveContext(Conn* conn, int32_t id);
  void PeerEnd(Conn* conn);
  void Pump(Conn* conn);
  void PumpPlain(Conn* conn);
  void PumpTls(Conn* conn);
  bool SendCipher(Conn* conn);
  void Settle(Conn* conn);
  void SendFailed(Conn* conn, int error);
  void Fail(Conn* conn, int32_t why);
  void CloseIfDone(Conn* conn);
  void Release(Conn* conn, bool reset);
  void Run(const int32_t* command);
  void Reap();
  void Stamp(const Conn* conn) { shared_.stamps[conn->id] = now_; }
  void Clock();

  struct Segment {
    const uint8_t* bytes;
    size_t length;
    int32_t next;
  };
  struct LateEvent {
    int32_t word[4];
  };

  Shared shared_;
  Sink* sink_;
  int epoll_;
  uint32_t now_ = 0;
  bool in_turn_ = false;
  size_t event_count_ = 0;
  size_t arena_used_ = 0;
  std::vector<std::unique_ptr<Conn>> conns_;
  std::vector<int32_t> free_;
  std::vector<int32_t> gone_;  // closed, their kClosed handed over: free after the turn
  std::vector<std::shared_ptr<Listener>> listeners_;
  std::vector<int32_t> free_listeners_;
  std::vector<int32_t>
      gone_listeners_;  // stopped: their numbers are free after the turn, whose events may still name them
  std::vector<std::shared_ptr<TlsContext>> contexts_;
  std::vector<int32_t> gone_contexts_;  // dropped: as above, for commands
  std::vector<Conn*> ready_;
  std::vector<Conn*> reading_;
  std::vector<Conn*> dirty_;
  std::vector<LateEvent> late_;
  std::vector<Segment> segments_;
  std::vector<uint8_t> stage_;
  ChunkPool pool_;
  TlsBuffers buffers_;
  long open_connections_ = 0;
  long open_listeners_ = 0;
  Statistics counts_;
};

}  // namespace ambit_io
