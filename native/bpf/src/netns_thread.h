// A thread that may enter other network namespaces. Never the main thread nor one of libuv's pool: a thread that fails
// to come back would make everything after it happen in the wrong namespace.
#pragma once
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace ambit_bpf {

class NetnsThread {
 public:
  NetnsThread() = default;
  ~NetnsThread();
  NetnsThread(const NetnsThread&) = delete;
  NetnsThread& operator=(const NetnsThread&) = delete;

  // Runs `task` inside the namespace and waits for it. Returns 0, or -errno of what failed before the task ran
  // (starting the thread, or setns). The thread goes home afterwards, so that it keeps no namespace alive.
  int Run(int netns_fd, const std::function<void()>& task);

 private:
  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::thread thread_;
  const std::function<void()>* task_ = nullptr;
  int netns_fd_ = -1;
  int result_ = 0;
  bool busy_ = false;
  bool stop_ = false;
};

}  // namespace ambit_bpf
