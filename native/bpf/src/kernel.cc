// bpf(2): maps, pins, links, information, test runs and probes. One function per command, nothing decided here.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "instance.h"

namespace ambit_bpf {
namespace {

constexpr uint32_t kLinkTypeTcx = 11;  // BPF_LINK_TYPE_TCX, of newer headers than libbpf's own

Napi::Value PossibleCpus(const Napi::CallbackInfo& info) { return Direct(info.Env(), libbpf_num_possible_cpus()); }

Napi::Value MapCreate(const Napi::CallbackInfo& info) {
  // 0 stands for no inner map: descriptor 0 is never a map of ours.
  LIBBPF_OPTS(bpf_map_create_opts, options, .inner_map_fd = Uint(info, 6), .map_flags = Uint(info, 5));
  std::string name = info[1].As<Napi::String>().Utf8Value();
  return Direct(info.Env(), bpf_map_create(static_cast<bpf_map_type>(Int(info, 0)), name.c_str(), Uint(info, 2),
                                           Uint(info, 3), Uint(info, 4), &options));
}

Napi::Value MapLookup(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_map_lookup_elem(Int(info, 0), Bytes(info, 1), Bytes(info, 2)));
}

Napi::Value MapTake(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_map_lookup_and_delete_elem(Int(info, 0), Bytes(info, 1), Bytes(info, 2)));
}

Napi::Value MapUpdate(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_map_update_elem(Int(info, 0), Bytes(info, 1), Bytes(info, 2), Uint(info, 3)));
}

Napi::Value MapDelete(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_map_delete_elem(Int(info, 0), Bytes(info, 1)));
}

Napi::Value MapNextKey(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_map_get_next_key(Int(info, 0), Bytes(info, 1), Bytes(info, 2)));
}

Napi::Value ObjPin(const Napi::CallbackInfo& info) {
  std::string path = info[1].As<Napi::String>().Utf8Value();
  return Direct(info.Env(), bpf_obj_pin(Int(info, 0), path.c_str()));
}

Napi::Value MapById(const Napi::CallbackInfo& info) { return Direct(info.Env(), bpf_map_get_fd_by_id(Uint(info, 0))); }

Napi::Value ProgramById(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_prog_get_fd_by_id(Uint(info, 0)));
}

// A descriptor; the kernel counts runs and times of all programs while any such one is open.
Napi::Value EnableStats(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_enable_stats(BPF_STATS_RUN_TIME));
}

Napi::Value ObjGet(const Napi::CallbackInfo& info) {
  std::string path = info[0].As<Napi::String>().Utf8Value();
  return Direct(info.Env(), bpf_obj_get(path.c_str()));
}

Napi::Value LinkCreate(const Napi::CallbackInfo& info) {
  // With BPF_F_BEFORE and no relative program the kernel puts the link before all others of the cgroup.
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = Uint(info, 3));
  return Direct(info.Env(),
                bpf_link_create(Int(info, 0), Int(info, 1), static_cast<bpf_attach_type>(Int(info, 2)), &options));
}

// A link to a network interface. The kernel looks its index up in the namespace of the calling thread, so this goes
// there. Answers -ENODEV where the interface is not.
Napi::Value LinkInterface(const Napi::CallbackInfo& info) {
  int program = Int(info, 0);
  std::string name = info[2].As<Napi::String>().Utf8Value();
  auto type = static_cast<bpf_attach_type>(Int(info, 3));
  LIBBPF_OPTS(bpf_link_create_opts, options, .flags = Uint(info, 4));
  int result = 0;
  int entered = InstanceOf(info.Env()).netns.Run(Int(info, 1), [&] {
    unsigned index = if_nametoindex(name.c_str());
    result = index == 0 ? -errno : bpf_link_create(program, static_cast<int>(index), type, &options);
  });
  return Direct(info.Env(), entered < 0 ? entered : result);
}

// A link of an iterator over everything of its kind, or over the entries of one map (fd > 0).
Napi::Value LinkIterator(const Napi::CallbackInfo& info) {
  bpf_iter_link_info which = {};
  which.map.map_fd = Uint(info, 1);
  LIBBPF_OPTS(bpf_link_create_opts, options);
  if (which.map.map_fd > 0) {
    options.iter_info = &which;
    options.iter_info_len = sizeof(which);
  }
  return Direct(info.Env(), bpf_link_create(Int(info, 0), 0, BPF_TRACE_ITER, &options));
}

// A descriptor of one run of an iterator, or -errno. Socket iterators walk the namespace of the thread that makes it.
int OpenIterator(Napi::Env env, int link, int netns) {
  int fd = -1;
  int entered = InstanceOf(env).netns.Run(netns, [&] { fd = bpf_iter_create(link); });
  return entered < 0 ? entered : fd;
}

// Reads a run to its end and closes it: 0, or -errno; -E2BIG past the bound.
int DrainIterator(int fd, size_t bound, std::vector<uint8_t>* out) {
  int failed = 0;
  for (;;) {
    size_t old = out->size();
    out->resize(old + 65536);
    ssize_t size = read(fd, out->data() + old, 65536);
    out->resize(old + (size > 0 ? static_cast<size_t>(size) : 0));
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (size < 0) failed = errno;
    if (out->size() > bound) failed = E2BIG;
    if (size <= 0 || failed != 0) break;
  }
  close(fd);
  return -failed;
}

Napi::Value ReadIterator(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = OpenIterator(env, Int(info, 0), Int(info, 1));
  if (fd < 0) return Direct(env, fd);
  std::vector<uint8_t> out;
  int result = DrainIterator(fd, Uint(info, 2), &out);
  return result < 0 ? Direct(env, result) : CopyOf(env, out.data(), out.size());
}

class IteratorWorker : public Napi::AsyncWorker {
 public:
  IteratorWorker(Napi::Env env, int fd, size_t bound)
      : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), fd_(fd), bound_(bound) {}

  Napi::Promise Promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { result_ = DrainIterator(fd_, bound_, &out_); }

  void OnOK() override {
    Napi::HandleScope scope(Env());
    deferred_.Resolve(result_ < 0 ? Direct(Env(), result_) : CopyOf(Env(), out_.data(), out_.size()));
  }

 private:
  Napi::Promise::Deferred deferred_;
  int fd_;
  size_t bound_;
  std::vector<uint8_t> out_;
  int result_ = 0;
};

// The same on a worker thread: the program runs while it is read.
Napi::Value ReadIteratorAsync(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = OpenIterator(env, Int(info, 0), Int(info, 1));
  if (fd < 0) {
    Napi::Promise::Deferred failed = Napi::Promise::Deferred::New(env);
    failed.Resolve(Direct(env, fd));
    return failed.Promise();
  }
  IteratorWorker* worker = new IteratorWorker(env, fd, Uint(info, 2));
  worker->Queue();
  return worker->Promise();
}

Napi::Value LinkUpdate(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), bpf_link_update(Int(info, 0), Int(info, 1), nullptr));
}

Napi::Value LinkDetach(const Napi::CallbackInfo& info) { return Direct(info.Env(), bpf_link_detach(Int(info, 0))); }

void Put(Napi::Object& out, const char* name, uint32_t value) { out[name] = Napi::Number::New(out.Env(), value); }

Napi::Value Info(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  int fd = Int(info, 0);
  std::string kind = info[1].As<Napi::String>().Utf8Value();
  Napi::Object out = Napi::Object::New(env);
  for (const char* name : {"keySize", "valueSize", "maxEntries", "flags", "programId", "attachType", "instructions"})
    Put(out, name, 0);
  out["name"] = Napi::String::New(env, "");
  out["tag"] = Napi::String::New(env, "");
  for (const char* name : {"target", "loadedAt", "runs", "runNanoseconds"})
    out[name] = Napi::BigInt::New(env, uint64_t{0});
  if (kind == "map") {
    bpf_map_info map = {};
    uint32_t size = sizeof(map);
    int result = bpf_obj_get_info_by_fd(fd, &map, &size);
    if (result < 0) return Direct(env, result);
    Put(out, "type", map.type);
    Put(out, "id", map.id);
    out["name"] = Napi::String::New(env, map.name);
    Put(out, "keySize", map.key_size);
    Put(out, "valueSize", map.value_size);
    Put(out, "maxEntries", map.max_entries);
    Put(out, "flags", map.map_flags);
  } else if (kind == "program") {
    bpf_prog_info program = {};
    uint32_t size = sizeof(program);
    int result = bpf_obj_get_info_by_fd(fd, &program, &size);
    if (result < 0) return Direct(env, result);
    char tag[2 * BPF_TAG_SIZE + 1];
    for (int i = 0; i < BPF_TAG_SIZE; i++) snprintf(tag + 2 * i, 3, "%02x", program.tag[i]);
    Put(out, "type", program.type);
    Put(out, "id", program.id);
    Put(out, "instructions", program.verified_insns);
    out["runs"] = Napi::BigInt::New(env, static_cast<uint64_t>(program.run_cnt));
    out["runNanoseconds"] = Napi::BigInt::New(env, static_cast<uint64_t>(program.run_time_ns));
    out["loadedAt"] = Napi::BigInt::New(env, static_cast<uint64_t>(program.load_time));
    out["name"] = Napi::String::New(env, program.name);
    out["tag"] = Napi::String::New(env, tag);
  } else {
    bpf_link_info link = {};
    uint32_t size = sizeof(link);
    int result = bpf_obj_get_info_by_fd(fd, &link, &size);
    if (result < 0) return Direct(env, result);
    Put(out, "type", link.type);
    Put(out, "id", link.id);
    Put(out, "programId", link.prog_id);
    if (link.type == BPF_LINK_TYPE_CGROUP) {
      Put(out, "attachType", link.cgroup.attach_type);
      out["target"] = Napi::BigInt::New(env, static_cast<uint64_t>(link.cgroup.cgroup_id));
    } else if (link.type == BPF_LINK_TYPE_NETNS || link.type == kLinkTypeTcx) {
      // struct tcx {ifindex, attach_type} has the layout of struct netns.
      Put(out, "attachType", link.netns.attach_type);
      out["target"] = Napi::BigInt::New(env, static_cast<uint64_t>(link.netns.netns_ino));
    }
  }
  return out;
}

Napi::Value TestRun(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = Bytes(info, 1), .data_out = Bytes(info, 2),
              .data_size_in = static_cast<uint32_t>(Length(info, 1)),
              .data_size_out = static_cast<uint32_t>(Length(info, 2)), .ctx_in = Bytes(info, 3),
              .ctx_out = Bytes(info, 4), .ctx_size_in = static_cast<uint32_t>(Length(info, 3)),
              .ctx_size_out = static_cast<uint32_t>(Length(info, 4)), .repeat = Int(info, 5));
  int result = bpf_prog_test_run_opts(Int(info, 0), &options);
  Napi::Object out = Napi::Object::New(env);
  out["result"] = Napi::Number::New(env, result);
  out["returned"] = Napi::Number::New(env, options.retval);
  out["nanoseconds"] = Napi::Number::New(env, options.duration);
  out["dataSize"] = Napi::Number::New(env, options.data_size_out);
  out["ctxSize"] = Napi::Number::New(env, options.ctx_size_out);
  return out;
}

Napi::Value ProbeProgram(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), libbpf_probe_bpf_prog_type(static_cast<bpf_prog_type>(Int(info, 0)), nullptr));
}

Napi::Value ProbeMap(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), libbpf_probe_bpf_map_type(static_cast<bpf_map_type>(Int(info, 0)), nullptr));
}

Napi::Value ProbeHelper(const Napi::CallbackInfo& info) {
  return Direct(info.Env(), libbpf_probe_bpf_helper(static_cast<bpf_prog_type>(Int(info, 0)),
                                                    static_cast<bpf_func_id>(Int(info, 1)), nullptr));
}

// A program of two instructions (return `answer`), for probing what it can be attached to.
int LoadReturning(bpf_prog_type type, int answer, const bpf_prog_load_opts& options) {
  bpf_insn code[2] = {};
  code[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  code[0].imm = answer;
  code[1].code = BPF_JMP | BPF_EXIT;
  return bpf_prog_load(type, "probe", "GPL", code, 2, &options);
}

Napi::Value LoadBare(const Napi::CallbackInfo& info) {
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = static_cast<bpf_attach_type>(Int(info, 1)));
  return Direct(info.Env(), LoadReturning(static_cast<bpf_prog_type>(Int(info, 0)), 1, options));
}

// 1 if the kernel takes a program that walks what is named, 0 or -errno if not.
Napi::Value ProbeIterator(const Napi::CallbackInfo& info) {
  std::string what = info[0].As<Napi::String>().Utf8Value();
  int id = libbpf_find_vmlinux_btf_id(what.c_str(), BPF_TRACE_ITER);
  if (id <= 0) return Direct(info.Env(), id);
  LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = BPF_TRACE_ITER);
  options.attach_btf_id = static_cast<uint32_t>(id);
  int fd = LoadReturning(BPF_PROG_TYPE_TRACING, 0, options);
  if (fd < 0) return Direct(info.Env(), fd);
  close(fd);
  return Direct(info.Env(), 1);
}

}  // namespace

void DefineKernel(Napi::Env env, Napi::Object exports) {
  exports["possibleCpus"] = Napi::Function::New(env, PossibleCpus);
  exports["mapCreate"] = Napi::Function::New(env, MapCreate);
  exports["mapLookup"] = Napi::Function::New(env, MapLookup);
  exports["mapTake"] = Napi::Function::New(env, MapTake);
  exports["mapUpdate"] = Napi::Function::New(env, MapUpdate);
  exports["mapDelete"] = Napi::Function::New(env, MapDelete);
  exports["mapNextKey"] = Napi::Function::New(env, MapNextKey);
  exports["objPin"] = Napi::Function::New(env, ObjPin);
  exports["mapById"] = Napi::Function::New(env, MapById);
  exports["programById"] = Napi::Function::New(env, ProgramById);
  exports["enableStats"] = Napi::Function::New(env, EnableStats);
  exports["objGet"] = Napi::Function::New(env, ObjGet);
  exports["linkCreate"] = Napi::Function::New(env, LinkCreate);
  exports["linkInterface"] = Napi::Function::New(env, LinkInterface);
  exports["linkIterator"] = Napi::Function::New(env, LinkIterator);
  exports["readIterator"] = Napi::Function::New(env, ReadIterator);
  exports["readIteratorAsync"] = Napi::Function::New(env, ReadIteratorAsync);
  exports["linkUpdate"] = Napi::Function::New(env, LinkUpdate);
  exports["linkDetach"] = Napi::Function::New(env, LinkDetach);
  exports["info"] = Napi::Function::New(env, Info);
  exports["testRun"] = Napi::Function::New(env, TestRun);
  exports["probeProgram"] = Napi::Function::New(env, ProbeProgram);
  exports["probeMap"] = Napi::Function::New(env, ProbeMap);
  exports["probeHelper"] = Napi::Function::New(env, ProbeHelper);
  exports["probeIterator"] = Napi::Function::New(env, ProbeIterator);
  exports["loadBare"] = Napi::Function::New(env, LoadBare);
}

}  // namespace ambit_bpf
