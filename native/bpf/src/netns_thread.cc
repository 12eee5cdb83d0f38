// See netns_thread.h.
#include "netns_thread.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace ambit_bpf {

NetnsThread::~NetnsThread() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

int NetnsThread::Run(int netns_fd, const std::function<void()>& task) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!thread_.joinable()) {
    try {
      thread_ = std::thread(&NetnsThread::Loop, this);
    } catch (const std::system_error& error) {
      return -error.code().value();
    }
  }
  netns_fd_ = netns_fd;
  task_ = &task;
  busy_ = true;
  wake_.notify_one();
  done_.wait(lock, [this] { return !busy_; });
  return result_;
}

void NetnsThread::Loop() {
  int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  int home_errno = errno;
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return busy_ || stop_; });
    if (stop_) break;
    if (home < 0) {
      result_ = -home_errno;
    } else if (setns(netns_fd_, CLONE_NEWNET) != 0) {
      result_ = -errno;
    } else {
      (*task_)();
      result_ = 0;
      // Coming home cannot fail after having left; if it did, the next task still enters its own namespace first.
      (void)setns(home, CLONE_NEWNET);
    }
    busy_ = false;
    done_.notify_one();
  }
  if (home >= 0) close(home);
}

}  // namespace ambit_bpf
