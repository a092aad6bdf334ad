// Calls functions when their time has come, by the monotonic clock.
//
// Not grpc::Alarm: as of gRPC 1.51 its timers wait for a time of the wall clock
// and are an hour late when that is set back by one.

#ifndef SERVER_RPC_TIMER_H_
#define SERVER_RPC_TIMER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"

namespace mmud {

// One thread for any number of functions. Thread-safe.
class Timer {
 public:
  // What was asked for; names nothing once it was called or cancelled.
  using Ticket = std::pair<mmu::MonotonicTime, uint64_t>;

  Timer();
  // What has not come by then is forgotten.
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Calls `function` once at `when`, or soon after; at once if that is past.
  // It runs on the timer's thread and must not wait for anything.
  Ticket At(mmu::MonotonicTime when, std::function<void()> function);
  // The function is not called any more, unless it is being called now.
  void Cancel(const Ticket& ticket);

 private:
  void Run();

  mmu::Mutex mu_;  // leaf
  mmu::CondVar changed_;
  std::map<Ticket, std::function<void()>> functions_ ABSL_GUARDED_BY(mu_);
  uint64_t count_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace mmud

#endif  // SERVER_RPC_TIMER_H_
