// The door between the engine and JavaScript: one engine per environment, watched by libuv, its
// memory given by JavaScript as typed arrays. Results are non-negative or -errno. Must not live
// here: what a turn does (engine.cc).
#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <napi.h>
#include <sys/un.h>
#include <uv.h>

#include <cstring>

#include "engine.h"

namespace ambit_io {

namespace {

struct Handles {
  uv_poll_t poll{};
  uv_idle_t idle{};
  int open = 2;
  napi_async_cleanup_hook_handle hook = nullptr;
};

class Instance : public Sink {
 public:
  Engine* engine = nullptr;

  size_t Deliver(size_t count) override {
    Napi::HandleScope scope(env_);
    Napi::Value argument = Napi::Number::New(env_, static_cast<double>(count));
    napi_value result = nullptr;
    napi_value function = on_turn_.Value();
    napi_value receiver = env_.Global();
    napi_value arguments[] = {argument};
    // Also runs the ticks and promises that the turn queued: what they write belongs to
    // it.
    napi_status status = napi_make_callback(env_, context_, receiver, function, 1, arguments, &result);
    if (status == napi_pending_exception) {
      // The dispatcher catches what handlers throw; anything else is a defect
      // that must be seen.
      napi_value error = nullptr;
      napi_get_and_clear_last_exception(env_, &error);
      napi_fatal_exception(env_, error);
    }
    size_t commands = static_cast<size_t>(control_[0]);
    control_[0] = 0;
    return commands;
  }

  void Wake() override {
    if (handles_ != nullptr) uv_idle_start(&handles_->idle, OnIdle);
  }

  void Start(const Napi::CallbackInfo& info) {
    env_ = info.Env();
    Napi::Object memory = info[0].As<Napi::Object>();
    Shared shared;
    Pin(memory, "arena", &shared.region[kArena], &shared.region_size[kArena]);
    Pin(memory, "slab", &shared.region[kSlab], &shared.region_size[kSlab]);
    Pin(memory, "copies", &shared.region[kCopies], &shared.region_size[kCopies]);
    size_t bytes = 0;
    Pin(memory, "events", reinterpret_cast<uint8_t**>(&shared.events), &bytes);
    shared.event_capacity = bytes / 16;
    Pin(memory, "commands", reinterpret_cast<uint8_t**>(&shared.commands), &bytes);
    shared.command_capacity = bytes / 16;
    Pin(memory, "control", reinterpret_cast<uint8_t**>(&control_), &bytes);
    Pin(memory, "pending", reinterpret_cast<uint8_t**>(&shared.pending), &bytes);
    shared.connections = bytes / 4;
    Pin(memory, "flags", &shared.flags, &bytes);
    Pin(memory, "stamps", reinterpret_cast<uint8_t**>(&shared.stamps), &bytes);
    on_turn_ = Napi::Persistent(info[1].As<Napi::Function>());
    napi_value name = Napi::String::New(env_, "ambit_io");
    napi_async_init(env_, nullptr, name, &context_);
    engine = new Engine(shared, this);
    if (engine->epoll_fd() < 0) {
      throw Napi::Error::New(env_, std::string("epoll_create1: ") + strerror(errno));
    }
    uv_loop_t* loop = nullptr;
    napi_get_uv_event_loop(env_, &loop);
    handles_ = new Handles();
    handles_->poll.data = handles_->idle.data = this;
    uv_poll_init(loop, &handles_->poll, engine->epoll_fd());
    uv_poll_start(&handles_->poll, UV_READABLE, OnPoll);
    uv_idle_init(loop, &handles_->idle);
    napi_add_async_cleanup_hook(env_, OnCleanup, this, &handles_->hook);
    Keep();
  }

  // The process lives as long as something is open.
  void Keep() {
    if (handles_ == nullptr) return;
    auto* handle = reinterpret_cast<uv_handle_t*>(&handles_->poll);
    if (engine->open() > 0) {
      uv_ref(handle);
    } else {
      uv_unref(handle);
    }
  }

 private:
  void Pin(const Napi::Object& memory, const char* name, uint8_t** at, size_t* size) {
    auto array = memory.Get(name).As<Napi::TypedArray>();
    pinned_.push_back(Napi::Persistent(array.As<Napi::Object>()));
    *at = static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
    *size = array.ByteLength();
  }

  static void OnPoll(uv_poll_t* handle, int, int) {
    auto* self = static_cast<Instance*>(handle->data);
    self->engine->Turn();
    self->Keep();
  }

  static void OnIdle(uv_idle_t* handle) {
    auto* self = static_cast<Instance*>(handle->data);
    uv_idle_stop(handle);
    self->engine->Turn();
    self->Keep();
  }

  static void OnCleanup(napi_async_cleanup_hook_handle, void* data) {
    auto* self = static_cast<Instance*>(data);
    Handles* handles = self->handles_;
    self->handles_ = nullptr;
    napi_async_destroy(self->env_, self->context_);
    handles->poll.data = handles->idle.data = handles;
    auto closed = [](uv_handle_t* handle) {
      auto* all = static_cast<Handles*>(handle->data);
      if (--all->open > 0) return;
      napi_remove_async_cleanup_hook(all->hook);
      delete all;
    };
    uv_close(reinterpret_cast<uv_handle_t*>(&handles->poll), closed);
    uv_close(reinterpret_cast<uv_handle_t*>(&handles->idle), closed);
    // After the poll has let go of its descriptor.
    delete self->engine;
    self->engine = nullptr;
  }

  Napi::Env env_{nullptr};
  Handles* handles_ = nullptr;
  napi_async_context context_ = nullptr;
  Napi::FunctionReference on_turn_;
  std::vector<Napi::ObjectReference> pinned_;
  int32_t* control_ = nullptr;
};

Instance& InstanceOf(const Napi::CallbackInfo& info) { return *info.Env().GetInstanceData<Instance>(); }

int32_t Int(const Napi::Value& value) { return value.As<Napi::Number>().Int32Value(); }

std::vector<uint8_t> BytesOf(const Napi::Value& value) {
  if (!value.IsTypedArray()) return {};
  auto bytes = value.As<Napi::Uint8Array>();
  return std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength());
}

std::string TextOf(const Napi::Value& value) { return value.IsString() ? value.As<Napi::String>().Utf8Value() : ""; }

// A socket address of 4 or 16 address bytes and a port; a path is one too. Length 0: it does not
// fit.
socklen_t AddressOf(const std::vector<uint8_t>& ip, int port, const std::string& path, sockaddr_storage* to) {
  memset(to, 0, sizeof(*to));
  if (!path.empty()) {
    auto* local = reinterpret_cast<sockaddr_un*>(to);
    if (path.size() >= sizeof(local->sun_path)) return 0;
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path.data(), path.size());
    return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  }
  if (ip.size() == 4) {
    auto* four = reinterpret_cast<sockaddr_in*>(to);
    four->sin_family = AF_INET;
    four->sin_port = htons(static_cast<uint16_t>(port));
    memcpy(&four->sin_addr, ip.data(), 4);
    return sizeof(*four);
  }
  if (ip.size() == 16) {
    auto* six = reinterpret_cast<sockaddr_in6*>(to);
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(static_cast<uint16_t>(port));
    memcpy(&six->sin6_addr, ip.data(), 16);
    return sizeof(*six);
  }
  return 0;
}

// An IPv4 address as an IPv6 socket needs it.
std::vector<uint8_t> Mapped(const std::vector<uint8_t>& four) {
  std::vector<uint8_t> six(16, 0);
  six[10] = six[11] = 0xff;
  memcpy(six.data() + 12, four.data(), 4);
  return six;
}

// 16 address bytes and two of the port, IPv4 as v4-mapped; a unix socket is all zero.
void Pack(const sockaddr_storage& from, uint8_t* to) {
  memset(to, 0, 18);
  if (from.ss_family == AF_INET) {
    const auto& four = reinterpret_cast<const sockaddr_in&>(from);
    to[10] = to[11] = 0xff;
    memcpy(to + 12, &four.sin_addr, 4);
    memcpy(to + 16, &four.sin_port, 2);
  } else if (from.ss_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6&>(from);
    memcpy(to, &six.sin6_addr, 16);
    memcpy(to + 16, &six.sin6_port, 2);
  }
}

Napi::Value Number(const Napi::CallbackInfo& info, double value) { return Napi::Number::New(info.Env(), value); }

Napi::Value Start(const Napi::CallbackInfo& info) {
  InstanceOf(info).Start(info);
  return info.Env().Undefined();
}

Napi::Value Flush(const Napi::CallbackInfo& info) {
  Instance& self = InstanceOf(info);
  self.engine->Flush(static_cast<size_t>(Int(info[0])));
  self.Keep();
  return info.Env().Undefined();
}

// listen({fd, ip, port, path, backlog, reusePort, ipv6Only, most, alpn?, request, minVersion}); fd
// -1 makes the socket.
Napi::Value Listen(const Napi::CallbackInfo& info) {
  Instance& self = InstanceOf(info);
  Napi::Object options = info[0].As<Napi::Object>();
  int fd = Int(options.Get("fd"));
  int backlog = Int(options.Get("backlog"));
  if (fd >= 0) {
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (fd < 0) return Number(info, -errno);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  } else {
    std::string path = TextOf(options.Get("path"));
    sockaddr_storage address;
    socklen_t length = AddressOf(BytesOf(options.Get("ip")), Int(options.Get("port")), path, &address);
    if (length == 0) return Number(info, -EINVAL);
    fd = sys::Socket(address.ss_family, SOCK_STREAM);
    if (fd < 0) return Number(info, -errno);
    int on = 1;
    int off = options.Get("ipv6Only").ToBoolean().Value() ? 1 : 0;
    if (address.ss_family != AF_UNIX) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    bool ok = true;
    if (options.Get("reusePort").ToBoolean().Value()) {
      ok = setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0;
    }
    if (!ok || bind(fd, reinterpret_cast<sockaddr*>(&address), length) < 0) {
      int error = errno;
      close(fd);
      return Number(info, -error);
    }
  }
  if (listen(fd, backlog) < 0) {
    int error = errno;
    close(fd);
    return Number(info, -error);
  }
  std::unique_ptr<ServerTls> tls;
  if (options.Get("alpn").IsTypedArray()) {
    tls = ServerTls::Make(BytesOf(options.Get("alpn")), options.Get("request").ToBoolean().Value(),
                          Int(options.Get("minVersion")));
    if (!tls) {
      close(fd);
      return Number(info, -ENOMEM);
    }
  }
  int32_t id = self.engine->Listen(fd, options.Get("most").As<Napi::Number>().Uint32Value(), std::move(tls));
  self.Keep();
  return Number(info, id);
}

Napi::Value Stop(const Napi::CallbackInfo& info) {
  Instance& self = InstanceOf(info);
  int result = self.engine->StopListening(Int(info[0]));
  self.Keep();
  return Number(info, result);
}

Napi::Value Pause(const Napi::CallbackInfo& info) {
  return Number(info, InstanceOf(info).engine->PauseListening(Int(info[0]), info[1].ToBoolean().Value()));
}

Napi::Value Refused(const Napi::CallbackInfo& info) {
  Listener* found = InstanceOf(info).engine->listener(Int(info[0]));
  return Number(info, found == nullptr ? 0 : static_cast<double>(found->refused));
}

// Fills 18 bytes with the address a listener is bound to.
Napi::Value Bound(const Napi::CallbackInfo& info) {
  Listener* found = InstanceOf(info).engine->listener(Int(info[0]));
  if (found == nullptr) return Number(info, -EBADF);
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(found->fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return Number(info, -errno);
  Pack(address, info[1].As<Napi::Uint8Array>().Data());
  return Number(info, 0);
}

// connect({fd, ip, port, path, source?, tls?: {alpn, serverName, sessionKey, minVersion}})
Napi::Value Connect(const Napi::CallbackInfo& info) {
  Instance& self = InstanceOf(info);
  Napi::Object options = info[0].As<Napi::Object>();
  int fd = Int(options.Get("fd"));
  std::vector<uint8_t> ip = BytesOf(options.Get("ip"));
  int port = Int(options.Get("port"));
  sockaddr_storage address;
  if (fd >= 0) {
    int family = 0;
    socklen_t length = sizeof(family);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) < 0) return Number(info, -errno);
    if (family == AF_INET6 && ip.size() == 4) ip = Mapped(ip);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  }
  socklen_t length = AddressOf(ip, port, TextOf(options.Get("path")), &address);
  if (length == 0) {
    if (fd >= 0) close(fd);
    return Number(info, -EINVAL);
  }
  if (fd < 0) {
    fd = sys::Socket(address.ss_family, SOCK_STREAM);
    if (fd < 0) return Number(info, -errno);
    std::vector<uint8_t> source = BytesOf(options.Get("source"));
    if (!source.empty()) {
      if (address.ss_family == AF_INET6 && source.size() == 4) source = Mapped(source);
      int on = 1;
      // The port is chosen at connect, by the whole tuple: many connections can
      // share a source port.
      setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
      sockaddr_storage from;
      socklen_t size = AddressOf(source, 0, "", &from);
      if (size == 0 || bind(fd, reinterpret_cast<sockaddr*>(&from), size) < 0) {
        int error = size == 0 ? EINVAL : errno;
        close(fd);
        return Number(info, -error);
      }
    }
  }
  std::unique_ptr<TlsState> tls;
  if (options.Get("tls").IsObject()) {
    Napi::Object settings = options.Get("tls").As<Napi::Object>();
    tls = TlsState::Client(BytesOf(settings.Get("alpn")), TextOf(settings.Get("serverName")),
                           TextOf(settings.Get("sessionKey")), Int(settings.Get("minVersion")));
  }
  int32_t id = self.engine->Connect(fd, reinterpret_cast<sockaddr*>(&address), length, std::move(tls));
  self.Keep();
  return Number(info, id);
}

Napi::Value Detach(const Napi::CallbackInfo& info) {
  Instance& self = InstanceOf(info);
  int fd = self.engine->Detach(Int(info[0]));
  self.Keep();
  return Number(info, fd);
}

Napi::Value Fd(const Napi::CallbackInfo& info) {
  Conn* conn = InstanceOf(info).engine->connection(Int(info[0]));
  return Number(info, conn == nullptr ? -1 : conn->fd);
}

// Fills 36 bytes: local address, then the peer's.
Napi::Value Names(const Napi::CallbackInfo& info) {
  Conn* conn = InstanceOf(info).engine->connection(Int(info[0]));
  if (conn == nullptr || conn->fd < 0) return Number(info, -EBADF);
  uint8_t* to = info[1].As<Napi::Uint8Array>().Data();
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(conn->fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return Number(info, -errno);
  Pack(address, to);
  length = sizeof(address);
  if (getpeername(conn->fd, reinterpret_cast<sockaddr*>(&address), &length) < 0) return Number(info, -errno);
  Pack(address, to + 18);
  return Number(info, 0);
}

// What a finished handshake gives: {alpn, serverName, certificates, resumed}; the name alone while
// a ClientHello waits.
Napi::Value Peer(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Conn* conn = InstanceOf(info).engine->connection(Int(info[0]));
  if (conn == nullptr || !conn->tls || conn->tls->ssl == nullptr) return env.Undefined();
  TlsPeer peer;
  if (conn->phase == Phase::kHandshake) {
    peer.server_name = conn->tls->server_name;
  } else {
    peer = PeerOf(conn->tls.get());
  }
  Napi::Object made = Napi::Object::New(env);
  made.Set("alpn", Napi::String::New(env, peer.alpn));
  made.Set("serverName", Napi::String::New(env, peer.server_name));
  made.Set("resumed", Napi::Boolean::New(env, peer.resumed));
  Napi::Array certificates = Napi::Array::New(env, peer.certificates.size());
  for (uint32_t i = 0; i < peer.certificates.size(); i++) {
    const auto& der = peer.certificates[i];
    Napi::Buffer<uint8_t> copy = Napi::Buffer<uint8_t>::Copy(env, der.data(), der.size());
    certificates.Set(i, copy);
  }
  made.Set("certificates", certificates);
  return made;
}

Napi::Value ErrorText(const Napi::CallbackInfo& info) {
  Conn* conn = InstanceOf(info).engine->connection(Int(info[0]));
  return Napi::String::New(info.Env(), conn == nullptr ? "" : conn->error);
}

Napi::Value Context(const Napi::CallbackInfo& info) {
  std::string error;
  auto made = TlsContext::Make(TextOf(info[0]), TextOf(info[1]), TextOf(info[2]), &error);
  if (made == nullptr) return Napi::String::New(info.Env(), error);
  return Number(info, InstanceOf(info).engine->AddContext(std::move(made)));
}

Napi::Value DropContext(const Napi::CallbackInfo& info) {
  Engine* engine = InstanceOf(info).engine;
  if (engine != nullptr) engine->DropContext(Int(info[0]));
  return info.Env().Undefined();
}

Napi::Value Stats(const Napi::CallbackInfo& info) {
  Statistics all = InstanceOf(info).engine->statistics();
  Napi::Object made = Napi::Object::New(info.Env());
  auto set = [&](const char* name, long value) {
    made.Set(name, Napi::Number::New(info.Env(), static_cast<double>(value)));
  };
  set("connections", all.connections);
  set("listeners", all.listeners);
  set("chunks", all.chunks);
  set("tls", all.tls);
  set("contexts", ContextsLive());
  set("turns", all.turns);
  set("events", all.events);
  set("reads", all.reads);
  set("sends", all.sends);
  return made;
}

Napi::Value Strerror(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), strerror(Int(info[0]))); }

#ifdef AMBIT_IO_FAULTS
// fault(call, error, skip, count, limit)
Napi::Value Fault(const Napi::CallbackInfo& info) {
  sys::Plan& plan = sys::plans[Int(info[0])];
  plan.error = Int(info[1]);
  plan.skip = Int(info[2]);
  plan.count = Int(info[3]);
  plan.limit = static_cast<size_t>(Int(info[4]));
  return info.Env().Undefined();
}

Napi::Value Injected(const Napi::CallbackInfo& info) { return Number(info, static_cast<double>(sys::injected)); }
#endif

// Gives back what malloc keeps of memory that was freed: OpenSSL's of connections that are gone, most of all.
Napi::Value Trim(const Napi::CallbackInfo& info) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
  return info.Env().Undefined();
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance());
  auto define = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports.Set(name, Napi::Function::New(env, function, name));
  };
  define("start", Start);
  define("flush", Flush);
  define("listen", Listen);
  define("stop", Stop);
  define("pause", Pause);
  define("refused", Refused);
  define("bound", Bound);
  define("connect", Connect);
  define("detach", Detach);
  define("fd", Fd);
  define("names", Names);
  define("peer", Peer);
  define("error", ErrorText);
  define("context", Context);
  define("dropContext", DropContext);
  define("stats", Stats);
  define("strerror", Strerror);
  define("trim", Trim);
#ifdef AMBIT_IO_FAULTS
  define("fault", Fault);
  define("injected", Injected);
#endif
  return exports;
}

}  // namespace

}  // namespace ambit_io

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) { return ambit_io::Init(env, exports); }

NODE_API_MODULE(ambit_io, InitModule)
