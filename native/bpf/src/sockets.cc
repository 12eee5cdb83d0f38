// Descriptors: sockets made inside other network namespaces, their names and cookies, interfaces there, passing over
// unix sockets; the bpffs. Every descriptor is close-on-exec from its birth.
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "instance.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif
#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

namespace ambit_bpf {
namespace {

constexpr long kBpffsMagic = 0xcafe4a11;
constexpr int kMaxFds = 253;  // SCM_MAX_FD of the kernel

Napi::Value Open(const Napi::CallbackInfo& info) {
  std::string path = info[0].As<Napi::String>().Utf8Value();
  return Outcome(info.Env(), open(path.c_str(), Int(info, 1) | O_CLOEXEC));
}

Napi::Value CloseFd(const Napi::CallbackInfo& info) { return Outcome(info.Env(), close(Int(info, 0))); }

Napi::Value Dup(const Napi::CallbackInfo& info) { return Outcome(info.Env(), fcntl(Int(info, 0), F_DUPFD_CLOEXEC, 0)); }

Napi::Value IsBpffs(const Napi::CallbackInfo& info) {
  std::string path = info[0].As<Napi::String>().Utf8Value();
  struct statfs found = {};
  if (statfs(path.c_str(), &found) != 0) return Outcome(info.Env(), -1);
  return Direct(info.Env(), static_cast<long>(found.f_type) == kBpffsMagic ? 1 : 0);
}

Napi::Value MountBpffs(const Napi::CallbackInfo& info) {
  std::string path = info[0].As<Napi::String>().Utf8Value();
  return Outcome(info.Env(), mount("bpf", path.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700"));
}

// The file handle of a cgroup's directory is its id (kernfs); the kernel's own selftests ask the same way.
Napi::Value CgroupId(const Napi::CallbackInfo& info) {
  std::string path = info[0].As<Napi::String>().Utf8Value();
  struct {
    struct file_handle head;
    uint64_t id;
  } handle = {};
  handle.head.handle_bytes = sizeof(handle.id);
  int mount_id = 0;
  if (name_to_handle_at(AT_FDCWD, path.c_str(), &handle.head, &mount_id, 0) != 0) return Outcome(info.Env(), -1);
  uint64_t id = 0;
  memcpy(&id, handle.head.f_handle, sizeof(id));
  return Napi::BigInt::New(info.Env(), id);
}

Napi::Value NetnsCookie(const Napi::CallbackInfo& info) {
  uint64_t cookie = 0;
  int failed = 0;
  int entered = InstanceOf(info.Env()).netns.Run(Int(info, 0), [&] {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof(cookie);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) failed = errno;
    if (fd >= 0) close(fd);
  });
  if (entered < 0) return Direct(info.Env(), entered);
  if (failed != 0) return Direct(info.Env(), -failed);
  return Napi::BigInt::New(info.Env(), cookie);
}

struct FoundInterface {
  int index;
  std::string name;
  int type;
  bool loopback;
};

// Not by getifaddrs, which leaves out interfaces without an address of their own, as tunnels are.
int ListInterfaces(std::vector<FoundInterface>* found) {
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct if_nameindex* list = fd < 0 ? nullptr : if_nameindex();
  if (list == nullptr) {
    int failed = errno;
    if (fd >= 0) close(fd);
    return -failed;
  }
  for (const struct if_nameindex* one = list; one->if_index != 0; one++) {
    ifreq ask = {};
    strncpy(ask.ifr_name, one->if_name, IFNAMSIZ - 1);
    // One that cannot be asked is gone by now.
    if (ioctl(fd, SIOCGIFHWADDR, &ask) != 0) continue;
    int type = ask.ifr_hwaddr.sa_family;
    if (ioctl(fd, SIOCGIFFLAGS, &ask) != 0) continue;
    found->push_back({static_cast<int>(one->if_index), one->if_name, type, (ask.ifr_flags & IFF_LOOPBACK) != 0});
  }
  if_freenameindex(list);
  close(fd);
  return 0;
}

Napi::Value Interfaces(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::vector<FoundInterface> found;
  int failed = 0;
  int entered = InstanceOf(env).netns.Run(Int(info, 0), [&] { failed = ListInterfaces(&found); });
  if (entered < 0) return Direct(env, entered);
  if (failed < 0) return Direct(env, failed);
  Napi::Array out = Napi::Array::New(env, found.size());
  for (size_t i = 0; i < found.size(); i++) {
    Napi::Object one = Napi::Object::New(env);
    one["index"] = Napi::Number::New(env, found[i].index);
    one["name"] = Napi::String::New(env, found[i].name);
    one["type"] = Napi::Number::New(env, found[i].type);
    one["loopback"] = Napi::Boolean::New(env, found[i].loopback);
    out[static_cast<uint32_t>(i)] = one;
  }
  return out;
}

struct SocketRequest {
  int family;
  int type;
  sockaddr_storage address = {};
  socklen_t address_size = 0;
  int backlog;
  int ipv6_only;
  bool reuse_port;
  bool reuse_address;
  bool transparent;
  uint32_t mark;
};

bool SetOption(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof(value)) == 0;
}

// Makes the socket in the calling thread's namespace. Returns it, or -errno with the failed call's name in *step.
int MakeSocket(const SocketRequest& request, const char** step) {
  *step = "socket";
  int fd = socket(request.family, request.type | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  auto configure = [&]() -> bool {
    *step = "setsockopt";
    bool six = request.family == AF_INET6;
    if (six && request.ipv6_only >= 0 && !SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, request.ipv6_only)) return false;
    if (request.reuse_port && !SetOption(fd, SOL_SOCKET, SO_REUSEPORT, 1)) return false;
    if (request.reuse_address && !SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return false;
    if (request.transparent &&
        !(six ? SetOption(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1) : SetOption(fd, IPPROTO_IP, IP_TRANSPARENT, 1)))
      return false;
    if (request.mark != 0 && !SetOption(fd, SOL_SOCKET, SO_MARK, static_cast<int>(request.mark))) return false;
    *step = "bind";
    if (request.address_size > 0 &&
        bind(fd, reinterpret_cast<const sockaddr*>(&request.address), request.address_size) != 0)
      return false;
    *step = "listen";
    return request.backlog < 0 || listen(fd, request.backlog) == 0;
  };
  if (configure()) return fd;
  int failed = errno;
  close(fd);
  return -failed;
}

Napi::Value SocketIn(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object options = info[0].As<Napi::Object>();
  auto number = [&](const char* name) { return options.Get(name).As<Napi::Number>().Int32Value(); };
  auto flag = [&](const char* name) { return options.Get(name).As<Napi::Boolean>().Value(); };
  SocketRequest request;
  request.family = number("family") == 6 ? AF_INET6 : AF_INET;
  request.type = number("type") | (flag("nonBlocking") ? SOCK_NONBLOCK : 0);
  request.backlog = number("backlog");
  request.ipv6_only = number("ipv6Only");
  request.reuse_port = flag("reusePort");
  request.reuse_address = flag("reuseAddress");
  request.transparent = flag("transparent");
  request.mark = options.Get("mark").As<Napi::Number>().Uint32Value();
  Napi::Uint8Array address = options.Get("bind").As<Napi::Uint8Array>();
  uint16_t port = htons(static_cast<uint16_t>(number("port")));
  if (address.ByteLength() == 4 && request.family == AF_INET) {
    auto* four = reinterpret_cast<sockaddr_in*>(&request.address);
    four->sin_family = AF_INET;
    four->sin_port = port;
    memcpy(&four->sin_addr, address.Data(), 4);
    request.address_size = sizeof(*four);
  } else if (address.ByteLength() == 16 && request.family == AF_INET6) {
    auto* six = reinterpret_cast<sockaddr_in6*>(&request.address);
    six->sin6_family = AF_INET6;
    six->sin6_port = port;
    memcpy(&six->sin6_addr, address.Data(), 16);
    request.address_size = sizeof(*six);
  }
  const char* step = "setns";
  int fd = -1;
  int entered = InstanceOf(env).netns.Run(number("netns"), [&] { fd = MakeSocket(request, &step); });
  if (entered == 0 && fd >= 0) return Direct(env, fd);
  Napi::Object failure = Napi::Object::New(env);
  failure["errno"] = Napi::Number::New(env, entered < 0 ? -entered : -fd);
  failure["syscall"] = Napi::String::New(env, step);
  return failure;
}

Napi::Value SocketCookie(const Napi::CallbackInfo& info) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(Int(info, 0), SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) return Outcome(info.Env(), -1);
  return Napi::BigInt::New(info.Env(), cookie);
}

Napi::Value SocketListens(const Napi::CallbackInfo& info) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (getsockopt(Int(info, 0), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0) return Outcome(info.Env(), -1);
  return Direct(info.Env(), listens);
}

// Of the namespace a socket belongs to, whatever the caller's is.
Napi::Value SocketNetns(const Napi::CallbackInfo& info) {
  uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(Int(info, 0), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) != 0) return Outcome(info.Env(), -1);
  return Napi::BigInt::New(info.Env(), cookie);
}

Napi::Value SocketName(const Napi::CallbackInfo& info) {
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  bool peer = info[1].As<Napi::Boolean>().Value();
  int result = peer ? getpeername(Int(info, 0), raw, &size) : getsockname(Int(info, 0), raw, &size);
  if (result != 0) return Outcome(info.Env(), -1);
  return CopyOf(info.Env(), &address, size < sizeof(address) ? size : sizeof(address));
}

Napi::Value SocketPair(const Napi::CallbackInfo& info) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) return Outcome(info.Env(), -1);
  Napi::Array out = Napi::Array::New(info.Env(), 2);
  out[0u] = Napi::Number::New(info.Env(), pair[0]);
  out[1u] = Napi::Number::New(info.Env(), pair[1]);
  return out;
}

// A connected, non-blocking unix socket that keeps the bounds of messages. Never waits: EAGAIN when the other end's
// queue of connections is full.
Napi::Value PacketSocket(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string path = info[0].As<Napi::String>().Utf8Value();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Direct(env, -ENAMETOOLONG);
  memcpy(address.sun_path, path.data(), path.size());
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Outcome(env, -1);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return Direct(env, fd);
  int failed = errno;
  close(fd);
  return Direct(env, -failed);
}

Napi::Value SendFds(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Array list = info[2].As<Napi::Array>();
  uint32_t count = list.Length();
  if (count > kMaxFds || Length(info, 1) == 0) return Direct(env, -EINVAL);
  iovec part = {Bytes(info, 1), Length(info, 1)};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    for (uint32_t i = 0; i < count; i++) {
      int fd = list.Get(i).As<Napi::Number>().Int32Value();
      memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof(int));
    }
  }
  return Outcome(env, sendmsg(Int(info, 0), &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

Napi::Value RecvFds(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  uint32_t max_fds = Uint(info, 2) > kMaxFds ? kMaxFds : Uint(info, 2);
  std::vector<uint8_t> bytes(Uint(info, 1));
  iovec part = {bytes.data(), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = max_fds == 0 ? nullptr : control;
  // CMSG_LEN, not CMSG_SPACE: padding would let one descriptor more than asked for slip in.
  message.msg_controllen = max_fds == 0 ? 0 : CMSG_LEN(max_fds * sizeof(int));
  ssize_t size = recvmsg(Int(info, 0), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (size < 0) return Outcome(env, -1);
  Napi::Array fds = Napi::Array::New(env);
  for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd = -1;
      memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
      fds[fds.Length()] = Napi::Number::New(env, fd);
    }
  }
  Napi::Object out = Napi::Object::New(env);
  out["bytes"] = CopyOf(env, bytes.data(), static_cast<size_t>(size));
  out["fds"] = fds;
  out["truncated"] = Napi::Boolean::New(env, (message.msg_flags & MSG_CTRUNC) != 0);
  return out;
}

}  // namespace

void DefineSockets(Napi::Env env, Napi::Object exports) {
  exports["open"] = Napi::Function::New(env, Open);
  exports["close"] = Napi::Function::New(env, CloseFd);
  exports["dup"] = Napi::Function::New(env, Dup);
  exports["isBpffs"] = Napi::Function::New(env, IsBpffs);
  exports["mountBpffs"] = Napi::Function::New(env, MountBpffs);
  exports["cgroupId"] = Napi::Function::New(env, CgroupId);
  exports["netnsCookie"] = Napi::Function::New(env, NetnsCookie);
  exports["interfaces"] = Napi::Function::New(env, Interfaces);
  exports["socketIn"] = Napi::Function::New(env, SocketIn);
  exports["socketCookie"] = Napi::Function::New(env, SocketCookie);
  exports["socketListens"] = Napi::Function::New(env, SocketListens);
  exports["socketName"] = Napi::Function::New(env, SocketName);
  exports["socketNetns"] = Napi::Function::New(env, SocketNetns);
  exports["packetSocket"] = Napi::Function::New(env, PacketSocket);
  exports["socketPair"] = Napi::Function::New(env, SocketPair);
  exports["sendFds"] = Napi::Function::New(env, SendFds);
  exports["recvFds"] = Napi::Function::New(env, RecvFds);
}

}  // namespace ambit_bpf
