// Memory that is a descriptor (memfd_create): filled once, then sealed, so that whoever has it reads what its maker
// wrote.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "instance.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U  // Linux 6.3
#endif

namespace ambit_bpf {
namespace {

constexpr int kSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

int Create(const char* name) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  // An older kernel does not know the flag.
  return fd < 0 && errno == EINVAL ? memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING) : fd;
}

bool Fill(int fd, const uint8_t* from, size_t size) {
  while (size > 0) {
    ssize_t written = write(fd, from, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    from += written;
    size -= static_cast<size_t>(written);
  }
  return fcntl(fd, F_ADD_SEALS, kSeals) == 0;
}

Napi::Value SealedMemory(const Napi::CallbackInfo& info) {
  std::string name = info[0].As<Napi::String>().Utf8Value();
  int fd = Create(name.c_str());
  if (fd < 0) return Outcome(info.Env(), -1);
  if (Fill(fd, Bytes(info, 1), Length(info, 1))) return Direct(info.Env(), fd);
  int failed = errno;
  close(fd);
  return Direct(info.Env(), -failed);
}

// 1 for memory that nobody can change or resize any more, 0 for other memory and files.
Napi::Value IsSealed(const Napi::CallbackInfo& info) {
  int seals = fcntl(Int(info, 0), F_GET_SEALS);
  if (seals < 0) return errno == EINVAL ? Direct(info.Env(), 0) : Outcome(info.Env(), -1);
  return Direct(info.Env(), (seals & kSeals) == kSeals ? 1 : 0);
}

}  // namespace

void DefineMemory(Napi::Env env, Napi::Object exports) {
  exports["sealedMemory"] = Napi::Function::New(env, SealedMemory);
  exports["isSealed"] = Napi::Function::New(env, IsSealed);
}

}  // namespace ambit_bpf
