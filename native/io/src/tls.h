// TLS over memory, by the OpenSSL that the Node binary carries: contexts, one handshake and one
// record layer per connection, sessions for resumption. Must not live here: sockets (engine.cc),
// who may talk to whom (the caller's verdict).
#pragma once
#include <openssl/ssl.h>

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "queue.h"

namespace ambit_io {

// Where records come from and go to while one connection is worked on; one for the whole engine.
struct TlsBuffers {
  const uint8_t* in = nullptr;
  size_t in_left = 0;
  bool in_ended = false;
  std::vector<uint8_t> out;
};

// One certificate with its key and the roots its peers are judged by. Rotation makes a new one:
// what is kept of sessions goes with the old.
class TlsContext {
 public:
  // PEM texts. Null, with `error` set, when something does not parse or does not fit
  // together.
  static std::shared_ptr<TlsContext> Make(const std::string& certificate, const std::string& key,
                                          const std::string& trust, std::string* error);
  ~TlsContext();

  SSL_CTX* context() const { return context_; }
  // Names certificate, key and trust: a session made under another is not resumed.
  const uint8_t* digest() const { return digest_; }

  void Keep(const std::string& key, SSL_SESSION* session);
  // The newest session for this key, which is then used up (RFC 8446 appendix C.4); null if
  // there is none.
  SSL_SESSION* Take(const std::string& key);
  size_t sessions() const { return order_.size(); }

 private:
  // Bound on sessions kept per context, oldest dropped first.
  static constexpr size_t kSessions = 1024;
  struct Entry {
    std::string key;
    SSL_SESSION* session;
  };
  SSL_CTX* context_ = nullptr;
  uint8_t digest_[32] = {};
  std::list<Entry> order_;
  std::unordered_multimap<std::string, std::list<Entry>::iterator> by_key_;
};

// What a listener asks of its clients.
struct ServerTls {
  ~ServerTls();
  // Null when OpenSSL has no memory.
  static std::unique_ptr<ServerTls> Make(std::vector<uint8_t> alpn, bool request, int min_version);

  SSL_CTX* base = nullptr;  // holds the ticket keys; certificates come per connection
  std::vector<uint8_t> alpn;
  bool request = true;
  int min_version = TLS1_3_VERSION;
};

struct TlsState {
  ~TlsState();
  // A client's: records nothing until Start.
  static std::unique_ptr<TlsState> Client(std::vector<uint8_t> alpn, std::string server_name, std::string session_key,
                                          int min_version);
  static std::unique_ptr<TlsState> Server(const ServerTls* server);

  // Server: the first bytes came. Client: the certificate is there. False when OpenSSL
  // refuses, with `error` set.
  bool Start(TlsBuffers* buffers, std::string* error);
  // Gives the certificate that the ClientHello waits for. False as above.
  bool Use(std::shared_ptr<TlsContext> with, std::string* error);

  SSL* ssl = nullptr;
  bool server = false;
  bool hello_told = false;  // kHello was handed over
  bool refused = false;     // the caller has no certificate for this name
  bool shutdown_sent = false;
  bool ended = false;  // the peer's FIN was seen below
  std::shared_ptr<TlsContext> context;
  std::vector<uint8_t> held;  // records that could not be worked on yet
  Queue cipher;               // records the socket has not taken
  std::string server_name;
  std::string alert;  // the last alert, sent or received
  // Client only.
  std::vector<uint8_t> alpn;
  std::string session_key;
  int min_version = TLS1_3_VERSION;
  const ServerTls* settings = nullptr;
  bool hello_pending = false;  // OpenSSL is inside the ClientHello call-back
};

// What the last failed call said, with OpenSSL's verdict on the peer's chain where that was the
// reason.
std::string TlsError(TlsState* tls);

// The peer as the verdict needs it: negotiated protocol, name asked for, certificates (DER, leaf
// first).
struct TlsPeer {
  std::string alpn;
  std::string server_name;
  std::vector<std::vector<uint8_t>> certificates;
  bool resumed = false;
};
TlsPeer PeerOf(TlsState* tls);
// False when a resumed session brings a peer certificate that is no longer valid in time.
bool PeerStillValid(TlsState* tls);

long TlsLive();
long ContextsLive();

}  // namespace ambit_io
