// Two engines in two threads of one process, each serving the other over TCP and TLS: what Worker threads do, without
// Node, which does not start under ThreadSanitizer. Prints what it carried; exits 1 when bytes are missing. Must not
// live here: what one engine does (test/native/torture.ts).
//   threads CERTIFICATE.pem KEY.pem ROOT.pem CONNECTIONS
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>
#include <vector>

#include "../src/engine.h"

using namespace ambit_io;

namespace {

constexpr size_t kBytes = 100000;

std::string FileText(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Pem {
  std::string certificate, key, root;
};

class Peer : public Sink {
 public:
  Peer(const Pem& pem, int connections) : wanted_(connections) {
    shared_.region[kArena] = arena_.data();
    shared_.region[kSlab] = slab_.data();
    shared_.region[kCopies] = copies_.data();
    for (size_t& size : shared_.region_size) size = arena_.size();
    shared_.events = events_.data();
    shared_.event_capacity = events_.size() / 4;
    shared_.commands = commands_.data();
    shared_.command_capacity = commands_.size() / 4;
    shared_.pending = pending_.data();
    shared_.flags = flags_.data();
    shared_.stamps = stamps_.data();
    shared_.connections = pending_.size();
    engine_ = std::make_unique<Engine>(shared_, this);
    std::string error;
    context_ = engine_->AddContext(TlsContext::Make(pem.certificate, pem.key, pem.root, &error));
    if (!error.empty()) fprintf(stderr, "certificate: %s\n", error.c_str());
    for (size_t i = 0; i < slab_.size(); i++) slab_[i] = static_cast<uint8_t>(i * 7);
    plain_port = Open(nullptr);
    secure_port = Open(ServerTls::Make({2, 'h', '2'}, true, TLS1_3_VERSION));
  }

  int plain_port = 0;
  int secure_port = 0;
  long received = 0;
  long failed = 0;

  void Drive(const Peer& other) {
    for (;;) {
      while (dialled_ < wanted_ && dialling_.size() < 8) Dial(other);
      if (dialled_ == wanted_ && dialling_.empty()) done.store(true);
      // Goes on serving until the other has had its turn too.
      if (done.load() && other.done.load()) return;
      pollfd one{engine_->epoll_fd(), POLLIN, 0};
      poll(&one, 1, woken_ ? 0 : 10);
      woken_ = false;
      engine_->Turn();
    }
  }

  size_t Deliver(size_t count) override {
    commanded_ = 0;
    for (size_t i = 0; i < count; i++) {
      const int32_t* event = events_.data() + i * 4;
      int32_t id = event[1];
      switch (event[0]) {
        case kConnected:
          if (secure_[id]) {
            Command(kContext, id, context_, 0);
          } else {
            Send(id);
          }
          break;
        case kHello:
          Command(kContext, id, context_, 0);
          break;
        case kSecure:
          Command(kAllow, id, 0, 0);
          if (dialling_.count(id) != 0) Send(id);
          break;
        case kRead:
          // A client counts what comes back; a server sends it back.
          if (dialling_.count(id) != 0) {
            dialling_[id] += static_cast<size_t>(event[3] - event[2]);
          } else {
            Command(kWrite | (kArena << 8), id, event[2], event[3]);
          }
          break;
        case kEnded:
          Command(kEnd, id, 0, 0);
          break;
        case kClosed: {
          auto found = dialling_.find(id);
          if (found == dialling_.end()) break;
          if (found->second != kBytes || event[2] != kCleanEnd) failed++;
          received += static_cast<long>(found->second);
          dialling_.erase(found);
          break;
        }
        default:
          break;
      }
    }
    return commanded_;
  }

  void Wake() override { woken_ = true; }

  std::atomic<bool> done{false};

 private:
  int Open(std::unique_ptr<ServerTls> tls) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) < 0 || listen(fd, 128) < 0) perror("listen");
    getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
    engine_->Listen(fd, 1000, std::move(tls));
    return ntohs(address.sin_port);
  }

  void Dial(const Peer& other) {
    bool secure = dialled_++ % 2 == 1;
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(secure ? other.secure_port : other.plain_port));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    auto tls = secure ? TlsState::Client({2, 'h', '2'}, "", "other", TLS1_3_VERSION) : nullptr;
    int32_t id = engine_->Connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address), std::move(tls));
    if (id < 0) {
      failed++;
      return;
    }
    secure_[id] = secure;
    dialling_[id] = 0;
  }

  void Send(int32_t id) {
    Command(kWrite | (kSlab << 8), id, 0, static_cast<int32_t>(kBytes));
    Command(kEnd, id, 0, 0);
  }

  void Command(int32_t operation, int32_t id, int32_t a, int32_t b) {
    int32_t* command = commands_.data() + commanded_++ * 4;
    command[0] = operation;
    command[1] = id;
    command[2] = a;
    command[3] = b;
  }

  std::vector<uint8_t> arena_ = std::vector<uint8_t>(262144), slab_ = arena_, copies_ = arena_, flags_ = arena_;
  std::vector<int32_t> events_ = std::vector<int32_t>(8192), commands_ = std::vector<int32_t>(65536);
  std::vector<uint32_t> pending_ = std::vector<uint32_t>(4096), stamps_ = pending_;
  Shared shared_;
  std::unique_ptr<Engine> engine_;
  int32_t context_ = -1;
  int wanted_;
  int dialled_ = 0;
  bool woken_ = false;
  size_t commanded_ = 0;
  std::map<int32_t, size_t> dialling_;
  std::map<int32_t, bool> secure_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: threads CERTIFICATE KEY ROOT CONNECTIONS\n");
    return 2;
  }
  Pem pem{FileText(argv[1]), FileText(argv[2]), FileText(argv[3])};
  int connections = atoi(argv[4]);
  Peer one(pem, connections);
  Peer two(pem, connections);
  std::thread first([&] { one.Drive(two); });
  std::thread second([&] { two.Drive(one); });
  first.join();
  second.join();
  printf("%d connections, %ld bytes, %ld failed\n", 2 * connections, one.received + two.received,
         one.failed + two.failed);
  return one.failed + two.failed == 0 && one.received == static_cast<long>(kBytes) * connections ? 0 : 1;
}
