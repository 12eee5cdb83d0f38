// The addon's entry: makes the instance and lets each subject define its functions.
#include "instance.h"

namespace ambit_bpf {

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance());
  DefineObject(env, exports);
  DefineBatch(env, exports);
  DefineKernel(env, exports);
  DefineMemory(env, exports);
  DefineRing(env, exports);
  DefineSockets(env, exports);
  return exports;
}

}  // namespace ambit_bpf

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) { return ambit_bpf::Init(env, exports); }

NODE_API_MODULE(ambit_bpf, InitModule)
