// Measures the cost of each flavour of liburcu. The results are the reason for
// the choice in mmu_core/sync/rcu.cc. See docs/performance.md.
//
//   bazel run -c opt //bench:rcu_flavours

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/functional/function_ref.h"
#include "bench/rcu_flavour.h"
#include "mmu_core/sync/rcu.h"

ABSL_FLAG(bool, quick, false, "Few repetitions, to see that it works.");

namespace mmu::bench {
namespace {

int64_t Nanos(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

// The median of the nanoseconds that `body` takes, over `repetitions` runs.
double Median(int repetitions, clockid_t clock,
              absl::FunctionRef<void()> body) {
  std::vector<int64_t> all;
  for (int i = 0; i < repetitions; ++i) {
    const int64_t begin = Nanos(clock);
    body();
    all.push_back(Nanos(clock) - begin);
  }
  std::nth_element(all.begin(), all.begin() + repetitions / 2, all.end());
  return static_cast<double>(all[repetitions / 2]);
}

struct Effort {
  int repetitions;
  uint64_t sections;
  uint64_t callbacks;
};

// The nanoseconds of a grace period while `readers` threads open and close read
// sections without a pause.
double GracePeriod(const RcuFlavour& flavour, int readers, int repetitions) {
  std::atomic<bool> stop{false};
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < readers; ++i) {
    threads.emplace_back([&] {
      flavour.register_thread();
      ready.fetch_add(1);
      flavour.read_until(stop);
      flavour.unregister_thread();
    });
  }
  while (ready.load() < readers) std::this_thread::yield();
  const double nanos =
      Median(repetitions, CLOCK_MONOTONIC, flavour.synchronize);
  stop.store(true);
  for (std::thread& thread : threads) thread.join();
  return nanos;
}

void Measure(const RcuFlavour& flavour, const Effort& effort) {
  flavour.register_thread();
  const double read = Median(effort.repetitions, CLOCK_THREAD_CPUTIME_ID,
                             [&] { flavour.read_sections(effort.sections); }) /
                      static_cast<double>(effort.sections);
  const double alone = GracePeriod(flavour, 0, effort.repetitions * 8);
  const double beside_one = GracePeriod(flavour, 1, effort.repetitions * 8);
  const double beside_four = GracePeriod(flavour, 4, effort.repetitions);
  std::vector<double> queued;
  for (int i = 0; i < effort.repetitions; ++i) {
    struct Queueing {
      int64_t begin;
      int64_t nanos;
    } queueing = {Nanos(CLOCK_THREAD_CPUTIME_ID), 0};
    flavour.run_callbacks(
        effort.callbacks,
        [](void* arg) {
          auto* q = static_cast<Queueing*>(arg);
          q->nanos = Nanos(CLOCK_THREAD_CPUTIME_ID) - q->begin;
        },
        &queueing);
    queued.push_back(static_cast<double>(queueing.nanos) /
                     static_cast<double>(effort.callbacks));
  }
  std::nth_element(queued.begin(), queued.begin() + effort.repetitions / 2,
                   queued.end());
  flavour.unregister_thread();
  std::printf("%-8s %12.2f %14.2f %14.2f %14.2f %12.2f\n", flavour.name, read,
              alone / 1e3, beside_one / 1e3, beside_four / 1e3,
              queued[effort.repetitions / 2]);
}

// Measures mmu_core's own read section, which uses memb. RcuReadGuard also
// counts the nesting depth and registers the thread at its first use.
void MeasureReadGuard(const Effort& effort) {
  const auto sections = [&effort] {
    for (uint64_t i = 0; i < effort.sections; ++i) {
      RcuReadGuard guard;
      asm volatile("" : : : "memory");
    }
  };
  std::printf("\nRcuReadGuard of mmu_core (memb): %.2f ns\n",
              Median(effort.repetitions, CLOCK_THREAD_CPUTIME_ID, sections) /
                  static_cast<double>(effort.sections));
}

int Main() {
  const Effort effort = absl::GetFlag(FLAGS_quick)
                            ? Effort{3, 1000, 100}
                            : Effort{21, 10'000'000, 100'000};
  std::printf("%-8s %12s %44s %12s\n", "", "read section",
              "grace period, us, beside so many readers", "call_rcu");
  std::printf("%-8s %12s %14s %14s %14s %12s\n", "flavour", "ns", "0", "1", "4",
              "ns");
  for (const RcuFlavour& flavour :
       {RcuFlavour_memb(), RcuFlavour_mb(), RcuFlavour_signal(),
        RcuFlavour_bp(), RcuFlavour_qsbr()}) {
    Measure(flavour, effort);
  }
  MeasureReadGuard(effort);
  return 0;
}

}  // namespace
}  // namespace mmu::bench

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "measures the flavours of liburcu: read sections, grace periods beside "
      "threads that read all the time, queueing of callbacks.");
  absl::ParseCommandLine(argc, argv);
  return mmu::bench::Main();
}
