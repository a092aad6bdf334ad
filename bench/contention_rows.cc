// Measures how much vCPUs that fault at the same time slow each other down.

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "mmu_core/sync/spin.h"

namespace mmu::bench {
namespace {

// Each of `vcpus` vCPUs populates `pages` pages of its own. Returns the pages
// per microsecond of all together.
double Throughput(int vcpus, uint64_t pages) {
  const uint64_t total = pages * vcpus;
  const std::unique_ptr<Vm> vm = MakeVm(total << kPageShift, Level::k4K,
                                        BackingKind::kMetadataOnly, vcpus);
  VmState& state = vm->state();
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    state.tdp.ZapLeafs(lock, 0, {Gfn(0), Gfn(total)}, RootFilter::kValid,
                       FlushReason::kZap, nullptr);
  }
  std::atomic<int> ready{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < vcpus; ++i) {
    threads.emplace_back([&, i] {
      ready.fetch_add(1);
      while (ready.load() <= vcpus) CpuRelax();
      FaultRange(*vm, i * pages, pages, AccessKind::kWrite, /*present=*/false,
                 i);
    });
  }
  while (ready.load() < vcpus) CpuRelax();
  const double nanos = WallNanos([&] {
    ready.fetch_add(1);
    for (std::thread& thread : threads) thread.join();
  });
  BENCH_CHECK(state.counters.Leafs(Level::k4K) == total);
  return static_cast<double>(total) / nanos * 1e3;
}

// Value: the throughput of two vCPUs. Limit: twice the throughput of one.
Measured FaultParallel(const Effort& effort) {
  const uint64_t pages = effort.Scale(131072);
  const Pair pair = Alternate(
      effort, [&] { return Throughput(2, pages); },
      [&] { return 2 * Throughput(1, pages); });
  return {.unit = "pages/us", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> ContentionRows() {
  return {{"fault_parallel", 0.9, Goal::kAtLeast, FaultParallel}};
}

}  // namespace mmu::bench
