#include "mmu_core/base/thread.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

// Relaxed: the count orders nothing. Negative: no limit.
constinit std::atomic<int64_t> threads_left{-1};

// Returns false if the test's limit is used up.
bool TakeThread() {
  int64_t left = threads_left.load(std::memory_order_relaxed);
  while (left > 0 && !threads_left.compare_exchange_weak(
                         left, left - 1, std::memory_order_relaxed)) {
  }
  return left != 0;
}

absl::Status NoThread(const std::string& why) {
  return MakeError(
      absl::StatusCode::kUnavailable, {Reason::kThreadsExhausted, "", EAGAIN},
      Format("the host makes no more threads for this process (%s); "
             "raise its limit on processes (ulimit -u, pids.max), or "
             "try again when other work has ended",
             why));
}

}  // namespace

absl::StatusOr<std::thread> MakeThread(std::function<void()> body) {
  if (!TakeThread()) return NoThread("a test forbids it");
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    return NoThread(error.code().message());
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     {Reason::kResourceExhaustedMemory, "", ENOMEM},
                     "no memory for a thread");
  }
}

std::thread MakeThreadOrExit(std::string_view purpose,
                             std::function<void()> body) {
  absl::StatusOr<std::thread> thread = MakeThread(std::move(body));
  if (thread.ok()) return *std::move(thread);
  std::fprintf(stderr, "no thread for %s: %s\n", std::string(purpose).c_str(),
               std::string(thread.status().message()).c_str());
  // _exit runs no destructors: other threads may already be running.
  _exit(1);
}

void LimitThreads(int64_t count) {
  threads_left.store(count, std::memory_order_relaxed);
}

}  // namespace mmu
