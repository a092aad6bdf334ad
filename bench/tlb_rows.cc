// Measures the cost of an access whose translation is in the vCPU's TLB.

#include <atomic>
#include <memory>
#include <random>
#include <vector>

#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "bench/rows.h"
#include "benchmark/benchmark.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kPages = VcpuTlb::kEntries4K / 2;
constexpr int kAddresses = 4096;

// One access in four is a write. The value written depends only on `i`.
constexpr bool IsWrite(int i) { return i % 4 == 0; }

Measured TlbHit(const Effort& effort) {
  const uint64_t rounds = effort.Scale(256);
  const std::unique_ptr<Vm> vm =
      MakeVm(kPages << kPageShift, Level::k4K, BackingKind::kAnonymous);
  VmState& state = vm->state();
  Vcpu& vcpu = *state.vcpus[0];

  std::mt19937_64 random(1);
  std::vector<Gpa> addresses;
  for (int i = 0; i < kAddresses; ++i) {
    addresses.push_back(Gpa(random() % (kPages << kPageShift) & ~uint64_t{7}));
  }
  std::vector<std::byte*> table;
  {
    MutexLock lock(state.slots.slots_lock);
    const Memslot& slot = *state.slots.Active(0).FindById(0);
    for (uint64_t page = 0; page < kPages; ++page) {
      table.push_back(slot.backing->PointerTo(slot.HvaOf(Gfn(page))));
    }
  }
  for (uint64_t page = 0; page < kPages; ++page) {
    uint64_t word = 0;
    BENCH_CHECK(vcpu.Access(ToGpa(Gfn(page)), AccessKind::kWrite, &word) ==
                AccessOutcome::kDone);
  }
  vcpu.EnterGuest();

  uint64_t expected = 0;  // sum of all words read and written in a run
  const auto access = [&] {
    const uint64_t faults = vcpu.stats().Snapshot().pf_taken;
    uint64_t sum = 0;
    const double nanos = Nanos([&] {
      for (uint64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < kAddresses; ++i) {
          uint64_t word = i;
          vcpu.Access(addresses[i],
                      IsWrite(i) ? AccessKind::kWrite : AccessKind::kRead,
                      &word);
          sum += word;
        }
      }
      benchmark::DoNotOptimize(sum);
    });
    BENCH_CHECK(vcpu.stats().Snapshot().pf_taken == faults);
    BENCH_CHECK(expected == 0 || sum == expected);
    return nanos / (rounds * kAddresses);
  };
  const auto plain = [&] {
    uint64_t sum = 0;
    const double nanos = Nanos([&] {
      for (uint64_t round = 0; round < rounds; ++round) {
        for (int i = 0; i < kAddresses; ++i) {
          const uint64_t gpa = addresses[i].value();
          std::atomic_ref<uint64_t> memory(*reinterpret_cast<uint64_t*>(
              table[gpa >> kPageShift] + (gpa & kPageMask)));
          if (IsWrite(i)) {
            memory.store(i, std::memory_order_relaxed);
            sum += i;
          } else {
            sum += memory.load(std::memory_order_relaxed);
          }
        }
      }
      benchmark::DoNotOptimize(sum);
    });
    expected = sum;  // valid: `access` ran before and made all writes
    return nanos / (rounds * kAddresses);
  };
  access();
  const Pair pair = Alternate(effort, access, plain);
  vcpu.ExitGuest();
  BENCH_CHECK(expected != 0);
  return {.unit = "ns", .value = pair.value, .limit = pair.limit};
}

}  // namespace

std::vector<Benchmark> TlbRows() {
  return {{"tlb_hit", 3, Goal::kAtMost, TlbHit}};
}

}  // namespace mmu::bench
