// A BPF object file by way of libbpf: open, configure, load on a worker thread.
#include <bpf/libbpf.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "instance.h"

namespace ambit_bpf {
namespace {

// libbpf has one print hook per process and calls it on the thread that does the work, so what it says is collected per
// thread: two environments loading at the same time do not mix their logs.
struct Collector {
  std::string text;
  bool debug = false;
};
thread_local Collector* collector = nullptr;

int Print(enum libbpf_print_level level, const char* format, va_list args) {
  if (collector == nullptr || (level == LIBBPF_DEBUG && !collector->debug)) return 0;
  va_list again;
  va_copy(again, args);
  int size = vsnprintf(nullptr, 0, format, args);
  if (size > 0) {
    size_t old = collector->text.size();
    collector->text.resize(old + static_cast<size_t>(size) + 1);
    vsnprintf(&collector->text[old], static_cast<size_t>(size) + 1, format, again);
    collector->text.resize(old + static_cast<size_t>(size));
  }
  va_end(again);
  return 0;
}

class Collecting {
 public:
  explicit Collecting(bool debug) {
    static std::once_flag once;
    std::call_once(once, [] { libbpf_set_print(Print); });
    mine_.debug = debug;
    collector = &mine_;
  }
  ~Collecting() { collector = nullptr; }
  Collecting(const Collecting&) = delete;
  Collecting& operator=(const Collecting&) = delete;
  const std::string& text() const { return mine_.text; }

 private:
  Collector mine_;
};

class Object : public Napi::ObjectWrap<Object> {
 public:
  static Napi::Function Define(Napi::Env env) {
    return DefineClass(env, "BpfObject",
                       {
                           InstanceMethod<&Object::Programs>("programs"),
                           InstanceMethod<&Object::Maps>("maps"),
                           InstanceMethod<&Object::SetAutoload>("setAutoload"),
                           InstanceMethod<&Object::SetMaxEntries>("setMaxEntries"),
                           InstanceMethod<&Object::SetPinPath>("setPinPath"),
                           InstanceMethod<&Object::Reuse>("reuse"),
                           InstanceMethod<&Object::Initial>("initial"),
                           InstanceMethod<&Object::SetInitial>("setInitial"),
                           InstanceMethod<&Object::Load>("load"),
                           InstanceMethod<&Object::MapFd>("mapFd"),
                           InstanceMethod<&Object::ProgramFd>("programFd"),
                           InstanceMethod<&Object::Close>("close"),
                       });
  }

  explicit Object(const Napi::CallbackInfo& info)
      : Napi::ObjectWrap<Object>(info), object_(info[0].As<Napi::External<bpf_object>>().Data()) {
    bpf_program* program = nullptr;
    while ((program = bpf_object__next_program(object_, program)) != nullptr) programs_.push_back(program);
    bpf_map* map = nullptr;
    while ((map = bpf_object__next_map(object_, map)) != nullptr) maps_.push_back(map);
  }

  ~Object() override { bpf_object__close(object_); }

 private:
  friend class LoadWorker;

  bpf_program* Program(const Napi::CallbackInfo& info) const {
    uint32_t index = Uint(info, 0);
    return object_ != nullptr && index < programs_.size() ? programs_[index] : nullptr;
  }

  bpf_map* Map(const Napi::CallbackInfo& info) const {
    uint32_t index = Uint(info, 0);
    return object_ != nullptr && index < maps_.size() ? maps_[index] : nullptr;
  }

  Napi::Value Programs(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Napi::Array out = Napi::Array::New(env);
    if (object_ == nullptr) return out;
    for (uint32_t i = 0; i < programs_.size(); i++) {
      Napi::Object item = Napi::Object::New(env);
      item["name"] = Napi::String::New(env, bpf_program__name(programs_[i]));
      item["section"] = Napi::String::New(env, bpf_program__section_name(programs_[i]));
      item["type"] = Napi::Number::New(env, bpf_program__type(programs_[i]));
      item["attachType"] = Napi::Number::New(env, bpf_program__expected_attach_type(programs_[i]));
      item["autoload"] = Napi::Boolean::New(env, bpf_program__autoload(programs_[i]));
      out[i] = item;
    }
    return out;
  }

  Napi::Value Maps(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    Napi::Array out = Napi::Array::New(env);
    if (object_ == nullptr) return out;
    for (uint32_t i = 0; i < maps_.size(); i++) {
      const bpf_map* map = maps_[i];
      const char* pin = bpf_map__pin_path(map);
      Napi::Object item = Napi::Object::New(env);
      item["name"] = Napi::String::New(env, bpf_map__name(map));
      item["type"] = Napi::Number::New(env, bpf_map__type(map));
      item["keySize"] = Napi::Number::New(env, bpf_map__key_size(map));
      item["valueSize"] = Napi::Number::New(env, bpf_map__value_size(map));
      item["maxEntries"] = Napi::Number::New(env, bpf_map__max_entries(map));
      item["flags"] = Napi::Number::New(env, bpf_map__map_flags(map));
      item["pinPath"] = Napi::String::New(env, pin == nullptr ? "" : pin);
      item["internal"] = Napi::Boolean::New(env, bpf_map__is_internal(map));
      // Known until load, which uses the definition up.
      const bpf_map* inner = bpf_map__inner_map(maps_[i]);
      if (inner != nullptr) {
        Napi::Object shape = Napi::Object::New(env);
        shape["type"] = Napi::Number::New(env, bpf_map__type(inner));
        shape["keySize"] = Napi::Number::New(env, bpf_map__key_size(inner));
        shape["valueSize"] = Napi::Number::New(env, bpf_map__value_size(inner));
        shape["maxEntries"] = Napi::Number::New(env, bpf_map__max_entries(inner));
        shape["flags"] = Napi::Number::New(env, bpf_map__map_flags(inner));
        item["inner"] = shape;
      }
      out[i] = item;
    }
    return out;
  }

  Napi::Value SetAutoload(const Napi::CallbackInfo& info) {
    bpf_program* program = Program(info);
    if (program == nullptr) return Direct(info.Env(), -EINVAL);
    return Direct(info.Env(), bpf_program__set_autoload(program, info[1].As<Napi::Boolean>().Value()));
  }

  Napi::Value SetMaxEntries(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    if (map == nullptr) return Direct(info.Env(), -EINVAL);
    return Direct(info.Env(), bpf_map__set_max_entries(map, Uint(info, 1)));
  }

  Napi::Value SetPinPath(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    if (map == nullptr) return Direct(info.Env(), -EINVAL);
    if (!info[1].IsString()) return Direct(info.Env(), bpf_map__set_pin_path(map, nullptr));
    std::string path = info[1].As<Napi::String>().Utf8Value();
    return Direct(info.Env(), bpf_map__set_pin_path(map, path.c_str()));
  }

  Napi::Value Reuse(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    if (map == nullptr) return Direct(info.Env(), -EINVAL);
    return Direct(info.Env(), bpf_map__reuse_fd(map, Int(info, 1)));
  }

  Napi::Value Initial(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    if (map == nullptr) return info.Env().Undefined();
    size_t size = 0;
    const void* value = bpf_map__initial_value(map, &size);
    if (value == nullptr) return info.Env().Undefined();
    return CopyOf(info.Env(), value, size);
  }

  Napi::Value SetInitial(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    if (map == nullptr) return Direct(info.Env(), -EINVAL);
    return Direct(info.Env(), bpf_map__set_initial_value(map, Bytes(info, 1), Length(info, 1)));
  }

  Napi::Value Load(const Napi::CallbackInfo& info);

  Napi::Value MapFd(const Napi::CallbackInfo& info) {
    bpf_map* map = Map(info);
    return Direct(info.Env(), map == nullptr ? -EINVAL : bpf_map__fd(map));
  }

  Napi::Value ProgramFd(const Napi::CallbackInfo& info) {
    bpf_program* program = Program(info);
    return Direct(info.Env(), program == nullptr ? -EINVAL : bpf_program__fd(program));
  }

  void Close(const Napi::CallbackInfo&) {
    if (loading_) return;  // the worker thread is using it; the collector closes it later
    bpf_object__close(object_);
    object_ = nullptr;
    programs_.clear();
    maps_.clear();
  }

  bpf_object* object_;
  std::vector<bpf_program*> programs_;
  std::vector<bpf_map*> maps_;
  bool loading_ = false;
};

class LoadWorker : public Napi::AsyncWorker {
 public:
  LoadWorker(Napi::Env env, Object* object, uint32_t log_level)
      : Napi::AsyncWorker(env),
        deferred_(Napi::Promise::Deferred::New(env)),
        object_(object),
        handle_(Napi::Persistent(object->Value())),
        log_level_(log_level) {
    object_->loading_ = true;
  }

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    Collecting collecting(log_level_ > 0);
    for (bpf_program* program : object_->programs_) bpf_program__set_log_level(program, log_level_);
    result_ = bpf_object__load(object_->object_);
    log_ = collecting.text();
  }

  void OnOK() override {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    object_->loading_ = false;
    Napi::Object out = Napi::Object::New(env);
    out["result"] = Napi::Number::New(env, result_);
    out["log"] = Napi::String::New(env, log_);
    deferred_.Resolve(out);
  }

 private:
  Napi::Promise::Deferred deferred_;
  Object* object_;
  Napi::ObjectReference handle_;  // keeps the object alive while the thread uses it
  uint32_t log_level_;
  int result_ = 0;
  std::string log_;
};

Napi::Value Object::Load(const Napi::CallbackInfo& info) {
  LoadWorker* worker = new LoadWorker(info.Env(), this, Uint(info, 0));
  worker->Queue();
  return worker->Promise();
}

Napi::Value OpenObject(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string path = info[0].As<Napi::String>().Utf8Value();
  Collecting collecting(false);
  errno = 0;
  bpf_object* object = bpf_object__open_file(path.c_str(), nullptr);
  int result = object == nullptr ? -errno : 0;
  Napi::Object out = Napi::Object::New(env);
  out["result"] = Napi::Number::New(env, result);
  out["log"] = Napi::String::New(env, collecting.text());
  if (object != nullptr) {
    out["object"] = InstanceOf(env).object_class.New({Napi::External<bpf_object>::New(env, object)});
  }
  return out;
}

}  // namespace

void DefineObject(Napi::Env env, Napi::Object exports) {
  InstanceOf(env).object_class = Napi::Persistent(Object::Define(env));
  exports["openObject"] = Napi::Function::New(env, OpenObject);
}

}  // namespace ambit_bpf
