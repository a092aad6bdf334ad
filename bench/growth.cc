#include "bench/growth.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_format.h"
#include "bench/guest_tables.h"
#include "bench/harness.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"

namespace mmu::bench {
namespace {

using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ReadLog;
using ::mmu::testing::SealLog;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;

constexpr uint64_t kGiBPages = PagesPer(Level::k1G);

// Writes to one page of each hundred, chosen at random. Returns their number.
uint64_t DirtyOnePercent(Vm& vm, uint64_t pages) {
  std::minstd_rand random(1);
  uint64_t dirtied = 0;
  for (uint64_t i = 0; i + 100 <= pages; i += 100, ++dirtied) {
    FaultRange(vm, i + random() % 100, 1, AccessKind::kWrite, /*present=*/true);
  }
  return dirtied;
}

double Millis(absl::FunctionRef<void()> fn) { return WallNanos(fn) / 1e6; }

void MemoryRow(uint64_t gib, std::ostream& out) {
  const uint64_t pages = gib * kGiBPages;
  RcuBarrier();
  const uint64_t tables_before = TablePool::Process().tables_out();
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k1G);
  const double split = Millis([&] { MapSmall(*vm, pages); });
  const uint64_t tables = TablePool::Process().tables_out() - tables_before;
  const double enable =
      Millis([&] { BENCH_CHECK(StartLog(*vm, {}, nullptr).ok()); });
  const uint64_t dirtied = DirtyOnePercent(*vm, pages);
  std::vector<uint64_t> words(pages / 64);
  absl::StatusOr<testing::SealedSlot> seal;
  const double seal_and_list = Millis([&] {
    seal = SealLog(*vm, 0, nullptr);
    BENCH_CHECK(seal.ok());
    BENCH_CHECK(ReadLog(*vm, 0, seal->epoch, 0, absl::MakeSpan(words)).ok());
  });
  BENCH_CHECK(seal->dirty_page_count == dirtied);
  const double clear = Millis([&] {
    BENCH_CHECK(
        ClearAndDeliver(*vm, 0, seal->epoch, 0, pages, words, nullptr).ok());
  });
  const double age = Millis([&] {
    BENCH_CHECK(
        vm->Age(GfnRange::Of(Gfn(0), pages), AgeMode::kTestAndClear, nullptr)
            .ok());
  });
  const double recover = Millis([&] {
    BENCH_CHECK(
        StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr).ok());
  });
  BENCH_CHECK(vm->Stats().pages_1g == gib);
  out << absl::StrFormat(
             "| %d GiB | %.1f | %.1f | %.2f | %.1f | %.1f | %.1f | %.2f |\n",
             gib, split, enable, seal_and_list, clear, age, recover,
             static_cast<double>(tables * (kPageSize + sizeof(ShadowPage))) /
                 static_cast<double>(gib << 20))
      << std::flush;
}

// The resident memory of the process.
double ResidentMiB() {
  uint64_t total = 0;
  uint64_t resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return static_cast<double>(resident * kPageSize) / (1 << 20);
}

// The slots have 64 KiB each and no contents, and are next to each other.
void SlotRow(uint32_t slots, std::ostream& out) {
  constexpr uint64_t kBytes = 64 << 10;
  VmConfig config;
  DirtyLogConfig log;
  for (uint32_t id = 0; id < slots; ++id) {
    MemslotConfig slot;
    slot.slot = id;
    slot.gpa = Gpa(id * kBytes);
    slot.size_bytes = kBytes;
    slot.backing = BackingKind::kMetadataOnly;
    config.memslots.push_back(slot);
    log.slots.push_back(id);
  }
  const double before = ResidentMiB();
  std::unique_ptr<Vm> vm;
  const double create = Millis([&] { vm = *Vm::Create(config); });
  const double start =
      Millis([&] { BENCH_CHECK(StartLog(*vm, log, nullptr).ok()); });
  const double look = Millis([&] {
    BENCH_CHECK(vm->Memslots().size() == slots);
    BENCH_CHECK(vm->FindDirtyLog()->state.slots.size() == slots);
  });
  const double seal =
      Millis([&] { BENCH_CHECK(SealLog(*vm, 0, nullptr).ok()); });
  // At least 0.1: the heap may have had enough free memory before.
  const double memory = std::max(ResidentMiB() - before, 0.1);
  const double stop = Millis([&] {
    BENCH_CHECK(
        StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  });
  const double destroy = Millis([&] { vm.reset(); });
  out << absl::StrFormat(
             "| %d | %.3f | %.3f | %.3f | %.3f | %.3f | %.3f | %.1f |\n", slots,
             create, start, look, seal, stop, destroy, memory)
      << std::flush;
}

// Makes `vcpus` threads run `fn(vcpu)`, starting at the same time. Returns the
// milliseconds until the last thread is done.
double Together(int vcpus, absl::FunctionRef<void(int)> fn) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < vcpus; ++i) {
    threads.emplace_back([&, i] {
      ready.fetch_add(1);
      while (!go.load()) std::this_thread::yield();
      fn(i);
    });
  }
  while (ready.load() < vcpus) std::this_thread::yield();
  return Millis([&] {
    go.store(true);
    for (std::thread& thread : threads) thread.join();
  });
}

void WriteAll(Vm& vm, int index, uint64_t first, uint64_t pages) {
  Vcpu& vcpu = *vm.state().vcpus[index];
  vcpu.EnterGuest();
  for (uint64_t i = 0; i < pages; ++i) {
    uint64_t word = 1;
    BENCH_CHECK(vcpu.Access(ToGpa(Gfn(first + i)), AccessKind::kWrite, &word) ==
                AccessOutcome::kDone);
  }
  vcpu.ExitGuest();
}

void VcpuRow(int vcpus, uint64_t pages_each, std::ostream& out) {
  const uint64_t pages = static_cast<uint64_t>(vcpus) * pages_each;
  const std::unique_ptr<Vm> vm = MakeVm(pages << kPageShift, Level::k4K,
                                        BackingKind::kMetadataOnly, vcpus);
  const auto pass = [&](int i) {
    WriteAll(*vm, i, static_cast<uint64_t>(i) * pages_each, pages_each);
  };
  const double populate = Together(vcpus, pass);
  BENCH_CHECK(vm->Stats().pages_4k == pages);

  // Logging is enabled while all vCPUs run.
  std::atomic<bool> stop{false};
  double enable = 0;
  std::thread operation([&] {
    enable = Millis([&] { BENCH_CHECK(StartLog(*vm, {}, nullptr).ok()); });
    stop.store(true);
  });
  Together(vcpus, [&](int i) {
    do pass(i);
    while (!stop.load());
  });
  operation.join();

  BENCH_CHECK(SealLog(*vm, 0, nullptr).ok());
  const auto unacked = [&] {
    return vm->FindDirtyLog()->state.slots[0].sealed_page_count;
  };
  std::vector<uint64_t> all(pages / 64, ~uint64_t{0});
  BENCH_CHECK(ClearAndDeliver(*vm, 0, vm->FindDirtyLog()->state.sealed_epoch, 0,
                              pages, all, nullptr)
                  .ok());
  BENCH_CHECK(unacked() == 0);
  const double dirty = Together(vcpus, pass);
  BENCH_CHECK(SealLog(*vm, 0, nullptr).ok());
  BENCH_CHECK(unacked() == pages);
  const double total = static_cast<double>(pages);
  out << absl::StrFormat("| %d | %.2f | %.2f | %.2f |\n", vcpus,
                         total / populate / 1e3, enable, total / dirty / 1e3)
      << std::flush;
}

}  // namespace

void RunGrowth(const GrowthOptions& options, std::ostream& out) {
  out << "One slot without contents, mapped with 4K pages; milliseconds.\n\n"
         "| memory | split to 4K | enable | seal and list 1 % | clear 1 % | "
         "age "
         "| disable, recover | tables, MiB/GiB |\n"
         "|---|---|---|---|---|---|---|---|\n";
  for (const uint64_t gib : options.sizes_gib) MemoryRow(gib, out);
  out << "\nSlots of 64 KiB without contents; milliseconds.\n\n"
         "| memslots | create the VM | start all logs | list slots and logs | "
         "seal each log | stop all logs | destroy | memory, MiB |\n"
         "|---|---|---|---|---|---|---|---|\n";
  for (const uint32_t slots : options.slots) SlotRow(slots, out);
  out << "\nEach vCPU writes to "
      << options.pages_per_vcpu * kPageSize / (1 << 20)
      << " MiB of its own.\n\n"
         "| vCPUs | populate, pages/us | enable while all run, ms | dirty "
         "protected pages, pages/us |\n"
         "|---|---|---|---|\n";
  for (const int vcpus : options.vcpus) {
    VcpuRow(vcpus, options.pages_per_vcpu, out);
  }
}

}  // namespace mmu::bench
