// Calls functions at given times of the monotonic clock.
//
// It does not use grpc::Alarm: in gRPC 1.51 its timers wait for a time of the
// wall clock, and are an hour late if that clock is set back by an hour.

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
  // Identifies a pending function; invalid once the function was called or
  // cancelled.
  using Ticket = std::pair<mmu::MonotonicTime, uint64_t>;

  Timer();
  // Drops the functions whose time has not come.
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // Calls `function` once at `when`, or soon after; at once if `when` is past.
  // It runs on the timer's thread and must not wait for anything.
  Ticket At(mmu::MonotonicTime when, std::function<void()> function);
  // Cancels the call of the function, unless it is running already.
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
