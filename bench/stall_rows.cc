// Measures the effect of operations on a running guest: how long they hold
// mmu_lock, and how long one access of a vCPU can take meanwhile.

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/latency_histogram.h"
#include "mmu_core/stats/lock_metrics.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/vm/jobs/split_job.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ReadLog;
using ::mmu::testing::SealLog;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;

constexpr int64_t kHoldLimitNanos = 200'000;

// vCPUs that write to random pages until told to stop.
class BusyGuest {
 public:
  // With as many vCPUs as processors, a vCPU may preempt an operation that
  // holds mmu_lock. The hold time would then measure the host's scheduler. kYes
  // prevents this: the vCPUs run only where a processor is idle.
  enum class GivesWay : uint8_t { kNo, kYes };

  BusyGuest(Vm& vm, uint64_t pages, int vcpus, GivesWay gives_way)
      : gives_way_(gives_way) {
    for (int i = 0; i < vcpus; ++i) {
      threads_.emplace_back([this, &vm, pages, i] { Run(vm, pages, i); });
    }
  }
  ~BusyGuest() { Stop(); }

  void Stop() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  // The 99th percentile of the accesses that vCPU 0 made while `operation`
  // ran, in nanoseconds.
  double StallDuring(absl::FunctionRef<void()> operation) {
    const uint64_t begin = made_.load();
    operation();
    // The access that began before the end of the operation counts, too.
    const uint64_t end = std::min<uint64_t>(made_.load() + 1, nanos_.size());
    while (made_.load() < end) std::this_thread::yield();
    BENCH_CHECK(end > begin);
    std::vector<int64_t> seen(nanos_.begin() + static_cast<int64_t>(begin),
                              nanos_.begin() + static_cast<int64_t>(end));
    const auto p99 =
        seen.begin() + static_cast<int64_t>(seen.size() * 99 / 100);
    std::nth_element(seen.begin(), p99, seen.end());
    return static_cast<double>(*p99);
  }

 private:
  void Run(Vm& vm, uint64_t pages, int index) {
    if (gives_way_ == GivesWay::kYes) {
      sched_param none = {};
      pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);
    }
    Vcpu& vcpu = *vm.state().vcpus[index];
    std::minstd_rand random(static_cast<uint32_t>(index) + 1);
    vcpu.EnterGuest();
    while (!stop_.load(std::memory_order_relaxed)) {
      uint64_t word = 1;
      const Gpa gpa = ToGpa(Gfn(random() % pages));
      const int64_t begin = MonotonicNanos();
      BENCH_CHECK(vcpu.Access(gpa, AccessKind::kWrite, &word) ==
                  AccessOutcome::kDone);
      const uint64_t n = made_.load(std::memory_order_relaxed);
      if (index != 0 || n >= nanos_.size()) continue;
      nanos_[n] = MonotonicNanos() - begin;
      made_.store(n + 1, std::memory_order_release);
    }
    vcpu.ExitGuest();
  }

  const GivesWay gives_way_;
  std::vector<int64_t> nanos_ = std::vector<int64_t>(20'000'000);
  std::atomic<uint64_t> made_{0};  // number of valid elements of nanos_
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

std::shared_ptr<SplitJob> ThrottledSplit(Vm& vm, int64_t pages_per_second) {
  SplitRequest request;
  request.throttle.max_pages_per_second = pages_per_second;
  absl::StatusOr<std::shared_ptr<SplitJob>> job =
      SplitJob::Create(vm.state(), request);
  BENCH_CHECK(job.ok());
  return *std::move(job);
}

void RecoverAll(Vm& vm) { BENCH_CHECK(vm.RecoverHugePages({}, nullptr).ok()); }

// Makes all calls of one migration.
void Round(Vm& vm, uint64_t pages) {
  BENCH_CHECK(ThrottledSplit(vm, 0)->Run().ok());
  DirtyLogConfig config;
  config.split = SplitPolicy::kEager;
  BENCH_CHECK(StartLog(vm, config, nullptr).ok());
  for (int i = 0; i < 3; ++i) {
    const absl::StatusOr<testing::SealedSlot> seal = SealLog(vm, 0, nullptr);
    BENCH_CHECK(seal.ok());
    std::vector<uint64_t> words(pages / 64);
    BENCH_CHECK(ReadLog(vm, 0, seal->epoch, 0, absl::MakeSpan(words)).ok());
    BENCH_CHECK(
        ClearAndDeliver(vm, 0, seal->epoch, 0, pages, words, nullptr).ok());
    BENCH_CHECK(
        vm.Age(GfnRange::Of(Gfn(0), pages), AgeMode::kTestAndClear, nullptr)
            .ok());
  }
  BENCH_CHECK(
      StopLog(vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
}

// All lock holds except those of faults, which are far more frequent and far
// shorter.
LatencySnapshot HoldsOfOperations(const Vm& vm) {
  LatencySnapshot holds;
  const LockMetrics lock = vm.Stats().lock;
  for (int mode = 0; mode < kLockModes; ++mode) {
    for (int op = 0; op < kLockOps; ++op) {
      if (static_cast<LockOp>(op) == LockOp::kFault) continue;
      holds.Add(lock.ops[mode][op].hold);
    }
  }
  return holds;
}

// Value: how long the operations of a migration hold mmu_lock while two vCPUs
// run. Limit: kHoldLimitNanos.
Measured LockHold(const Effort& effort) {
  const uint64_t pages = effort.Scale(16) * PagesPer(Level::k1G);
  const std::unique_ptr<Vm> vm =
      MakeVm(pages << kPageShift, Level::k1G, BackingKind::kMetadataOnly, 2);
  {
    BusyGuest guest(*vm, pages, 2, BusyGuest::GivesWay::kYes);
    for (int i = 0; i < effort.repetitions; ++i) Round(*vm, pages);
  }
  const LatencySnapshot holds = HoldsOfOperations(*vm);
  BENCH_CHECK(holds.count > 100);
  // A quantile is the upper bound of its bucket; nothing is above the maximum.
  return {.unit = "us",
          .value = static_cast<double>(
                       std::min(holds.QuantileNanos(0.999), holds.max_nanos)) /
                   1e3,
          .limit = kHoldLimitNanos / 1e3};
}

// Value: the time of a vCPU's access while `operation` runs. Limit: the time of
// an access without an operation. `reset` undoes the operation.
Measured Stall(const Effort& effort, absl::FunctionRef<void(Vm&)> operation,
               absl::FunctionRef<void(Vm&)> reset) {
  const uint64_t pages = effort.Scale(16) * PagesPer(Level::k1G);
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k1G);
  const auto during = [&](absl::FunctionRef<void()> what) {
    BusyGuest guest(*vm, pages, 1, BusyGuest::GivesWay::kNo);
    return guest.StallDuring(what);
  };
  const Pair pair = Alternate(
      effort,
      [&] {
        const double stall = during([&] { operation(*vm); });
        reset(*vm);
        return stall;
      },
      [&] {
        return during(
            [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
      });
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

Measured StallDuringSplit(const Effort& effort) {
  return Stall(
      effort,
      [](Vm& vm) {
        // A rate of 64 GiB per second: 16 GiB take a quarter of a second.
        BENCH_CHECK(ThrottledSplit(vm, int64_t{16} << 20)->Run().ok());
      },
      RecoverAll);
}

Measured StallDuringEnable(const Effort& effort) {
  return Stall(
      effort,
      [](Vm& vm) {
        DirtyLogConfig config;
        config.split = SplitPolicy::kEager;
        BENCH_CHECK(StartLog(vm, config, nullptr).ok());
      },
      [](Vm& vm) {
        BENCH_CHECK(
            StopLog(vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr)
                .ok());
      });
}

}  // namespace

std::vector<Benchmark> StallRows() {
  return {{"lock_hold", 1, Goal::kAtMost, LockHold},
          {"vcpu_stall_split", 10, Goal::kAtMost, StallDuringSplit},
          {"vcpu_stall_enable", 10, Goal::kAtMost, StallDuringEnable}};
}

}  // namespace mmu::bench
