// Many entries of a map by one system call (kernel 5.6), on the calling thread or on a worker. Keys and values lie
// packed one after the other. What an entry is and what to do without batches is for TypeScript to say.
#include <bpf/bpf.h>

#include <string>

#include "instance.h"

namespace ambit_bpf {
namespace {

struct Batch {
  std::string operation;
  int fd;
  void* from;  // where the walk goes on; null at its beginning
  void* token;
  void* keys;
  void* values;
  uint32_t count;  // in: entries there is room for or that are given; out: entries done
  uint64_t flags;

  int Run() {
    LIBBPF_OPTS(bpf_map_batch_opts, options, .elem_flags = flags);
    if (operation == "lookup") return bpf_map_lookup_batch(fd, from, token, keys, values, &count, &options);
    if (operation == "take") return bpf_map_lookup_and_delete_batch(fd, from, token, keys, values, &count, &options);
    if (operation == "update") return bpf_map_update_batch(fd, keys, values, &count, &options);
    if (operation == "delete") return bpf_map_delete_batch(fd, keys, &count, &options);
    return -EINVAL;
  }
};

Batch Request(const Napi::CallbackInfo& info) {
  return {info[0].As<Napi::String>().Utf8Value(),
          Int(info, 1),
          Bytes(info, 2),
          Bytes(info, 3),
          Bytes(info, 4),
          Bytes(info, 5),
          Uint(info, 6),
          Uint(info, 7)};
}

Napi::Object Answer(Napi::Env env, int result, uint32_t count) {
  Napi::Object out = Napi::Object::New(env);
  out["result"] = Napi::Number::New(env, result);
  out["count"] = Napi::Number::New(env, count);
  return out;
}

Napi::Value MapBatch(const Napi::CallbackInfo& info) {
  Batch batch = Request(info);
  int result = batch.Run();
  return Answer(info.Env(), result, batch.count);
}

class BatchWorker : public Napi::AsyncWorker {
 public:
  explicit BatchWorker(const Napi::CallbackInfo& info)
      : Napi::AsyncWorker(info.Env()), deferred_(Napi::Promise::Deferred::New(info.Env())), batch_(Request(info)) {
    // The arrays stay alive and in place while the thread uses them.
    Napi::Array held = Napi::Array::New(info.Env(), 4);
    for (uint32_t i = 0; i < 4; i++) held[i] = info[i + 2];
    held_ = Napi::Persistent(held.As<Napi::Object>());
  }

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { result_ = batch_.Run(); }

  void OnOK() override {
    Napi::HandleScope scope(Env());
    deferred_.Resolve(Answer(Env(), result_, batch_.count));
  }

 private:
  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference held_;
  Batch batch_;
  int result_ = 0;
};

Napi::Value MapBatchAsync(const Napi::CallbackInfo& info) {
  BatchWorker* worker = new BatchWorker(info);
  worker->Queue();
  return worker->Promise();
}

}  // namespace

void DefineBatch(Napi::Env env, Napi::Object exports) {
  exports["mapBatch"] = Napi::Function::New(env, MapBatch);
  exports["mapBatchAsync"] = Napi::Function::New(env, MapBatchAsync);
}

}  // namespace ambit_bpf
