// The ring buffer on libuv's loop: its epoll descriptor is polled, records of one turn are copied into one buffer, and
// JavaScript is called once per turn.
#include <bpf/libbpf.h>
#include <uv.h>

#include <memory>
#include <vector>

#include "instance.h"

namespace ambit_bpf {
namespace {

class Ring {
 public:
  Ring(Napi::Env env, uint32_t max_records, uint32_t max_bytes, Napi::Function on_batch)
      : env_(env),
        max_records_(max_records),
        max_bytes_(max_bytes),
        on_batch_(Napi::Persistent(on_batch)),
        context_(env, "ambit_bpf:ring") {}

  // 0 or -errno. On success `self` keeps the ring alive until its handle is closed.
  int Start(int map_fd, std::shared_ptr<Ring> self) {
    errno = 0;
    buffer_ = ring_buffer__new(map_fd, &Ring::OnSample, this, nullptr);
    if (buffer_ == nullptr) return errno == 0 ? -ENOMEM : -errno;
    uv_loop_t* loop = nullptr;
    if (napi_get_uv_event_loop(env_, &loop) != napi_ok) return -EINVAL;
    int result = uv_poll_init(loop, &poll_, ring_buffer__epoll_fd(buffer_));
    if (result != 0) return result;
    self_ = std::move(self);
    poll_.data = this;
    napi_add_async_cleanup_hook(env_, &Ring::OnTeardown, this, &hook_);
    result = uv_poll_start(&poll_, UV_READABLE, &Ring::OnReadable);
    if (result != 0) Close();
    return result;
  }

  ~Ring() { ring_buffer__free(buffer_); }

  void Close() {
    if (closing_ || self_ == nullptr) return;
    closing_ = true;
    uv_poll_stop(&poll_);
    uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
      Ring* ring = static_cast<Ring*>(handle->data);
      // The hook's removal also tells a waiting teardown that this handle is gone.
      napi_remove_async_cleanup_hook(ring->hook_);
      ring->on_batch_.Reset();
      ring->self_.reset();
    });
  }

  void Hold(bool hold) {
    if (closing_) return;
    if (hold) {
      uv_ref(reinterpret_cast<uv_handle_t*>(&poll_));
    } else {
      uv_unref(reinterpret_cast<uv_handle_t*>(&poll_));
    }
  }

 private:
  static void OnTeardown(napi_async_cleanup_hook_handle, void* data) { static_cast<Ring*>(data)->Close(); }

  static int OnSample(void* data, void* sample, size_t size) {
    Ring* ring = static_cast<Ring*>(data);
    ring->ranges_.push_back(static_cast<uint32_t>(ring->bytes_.size()));
    ring->ranges_.push_back(static_cast<uint32_t>(size));
    const uint8_t* from = static_cast<const uint8_t*>(sample);
    ring->bytes_.insert(ring->bytes_.end(), from, from + size);
    // A negative answer ends the turn with this record consumed; the rest stays readable for the next.
    return ring->ranges_.size() / 2 >= ring->max_records_ || ring->bytes_.size() >= ring->max_bytes_ ? -EAGAIN : 0;
  }

  static void OnReadable(uv_poll_t* handle, int, int) {
    Ring* ring = static_cast<Ring*>(handle->data);
    std::shared_ptr<Ring> keep = ring->self_;
    ring->bytes_.clear();
    ring->ranges_.clear();
    ring_buffer__consume(ring->buffer_);
    if (ring->ranges_.empty()) return;
    ring->Deliver();
  }

  void Deliver() {
    Napi::Env env(env_);
    Napi::HandleScope scope(env);
    Napi::Uint8Array bytes = CopyOf(env, bytes_.data(), bytes_.size());
    Napi::Uint32Array ranges = Napi::Uint32Array::New(env, ranges_.size());
    memcpy(ranges.Data(), ranges_.data(), ranges_.size() * sizeof(uint32_t));
    on_batch_.MakeCallback(env.Global(), {bytes, ranges}, context_);
    if (env.IsExceptionPending()) {
      napi_fatal_exception(env, env.GetAndClearPendingException().Value());
    }
  }

  napi_env env_;
  uint32_t max_records_;
  uint32_t max_bytes_;
  Napi::FunctionReference on_batch_;
  Napi::AsyncContext context_;
  ring_buffer* buffer_ = nullptr;
  uv_poll_t poll_ = {};
  napi_async_cleanup_hook_handle hook_ = nullptr;
  std::shared_ptr<Ring> self_;
  std::vector<uint8_t> bytes_;
  std::vector<uint32_t> ranges_;
  bool closing_ = false;
};

Napi::Value RingOpen(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto ring = std::make_shared<Ring>(env, Uint(info, 1), Uint(info, 2), info[3].As<Napi::Function>());
  int result = ring->Start(Int(info, 0), ring);
  if (result != 0) return Direct(env, result);
  std::weak_ptr<Ring> weak = ring;
  Napi::Object out = Napi::Object::New(env);
  out["ref"] = Napi::Function::New(env, [weak](const Napi::CallbackInfo&) {
    if (auto held = weak.lock()) held->Hold(true);
  });
  out["unref"] = Napi::Function::New(env, [weak](const Napi::CallbackInfo&) {
    if (auto held = weak.lock()) held->Hold(false);
  });
  out["close"] = Napi::Function::New(env, [weak](const Napi::CallbackInfo&) {
    if (auto held = weak.lock()) held->Close();
  });
  return out;
}

}  // namespace

void DefineRing(Napi::Env env, Napi::Object exports) { exports["ringOpen"] = Napi::Function::New(env, RingOpen); }

}  // namespace ambit_bpf
