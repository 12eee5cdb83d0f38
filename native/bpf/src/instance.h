// What one JavaScript environment owns of this addon. Worker threads load the addon anew, so nothing may be static: it
// all hangs here. (libbpf's print hook is the one thing a process has once; see object.cc.)
#pragma once
#include <napi.h>

#include <cerrno>
#include <cstdint>
#include <memory>

#include "netns_thread.h"

namespace ambit_bpf {

struct Instance {
  Napi::FunctionReference object_class;
  NetnsThread netns;
};

inline Instance& InstanceOf(Napi::Env env) { return *env.GetInstanceData<Instance>(); }

// A system call's outcome as JavaScript gets it: the result, or -errno.
inline Napi::Value Outcome(Napi::Env env, int64_t result) {
  return Napi::Number::New(env, static_cast<double>(result < 0 ? -errno : result));
}

// The same for libbpf 1.x, whose functions return -errno themselves.
inline Napi::Value Direct(Napi::Env env, int64_t result) { return Napi::Number::New(env, static_cast<double>(result)); }

inline int32_t Int(const Napi::CallbackInfo& info, size_t i) { return info[i].As<Napi::Number>().Int32Value(); }

inline uint32_t Uint(const Napi::CallbackInfo& info, size_t i) { return info[i].As<Napi::Number>().Uint32Value(); }

// The bytes behind a Uint8Array argument; null for null.
inline uint8_t* Bytes(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsTypedArray()) return nullptr;
  return info[i].As<Napi::Uint8Array>().Data();
}

inline size_t Length(const Napi::CallbackInfo& info, size_t i) {
  if (!info[i].IsTypedArray()) return 0;
  return info[i].As<Napi::Uint8Array>().ByteLength();
}

inline Napi::Uint8Array CopyOf(Napi::Env env, const void* data, size_t size) {
  Napi::Uint8Array out = Napi::Uint8Array::New(env, size);
  if (size > 0) memcpy(out.Data(), data, size);
  return out;
}

void DefineObject(Napi::Env env, Napi::Object exports);
void DefineBatch(Napi::Env env, Napi::Object exports);
void DefineKernel(Napi::Env env, Napi::Object exports);
void DefineMemory(Napi::Env env, Napi::Object exports);
void DefineRing(Napi::Env env, Napi::Object exports);
void DefineSockets(Napi::Env env, Napi::Object exports);

}  // namespace ambit_bpf
