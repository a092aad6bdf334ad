// The VM of memslot_perf: one vCPU, and a test area that is divided into
// memslots.

#ifndef BENCH_MEMSLOT_AREA_H_
#define BENCH_MEMSLOT_AREA_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/scenario.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/vm/vm.h"

namespace mmu::bench {

// Pages are counted from the start of the area. Only the thread that made the
// object may call its functions.
class MemslotArea {
 public:
  static constexpr uint64_t kPages = 8192;

  // `slots` is at most kPages; the last slot has the remaining pages.
  static absl::StatusOr<std::unique_ptr<MemslotArea>> Create(
      uint64_t slots, VmConfig::SlotZap slot_zap);

  uint64_t slots() const { return slots_.size(); }
  uint64_t pages_per_slot() const { return pages_per_slot_; }

  // --- The guest; each waits until the vCPU is done ---

  // Reads `old_value` from each page of [first, end), then writes `new_value`.
  absl::Status ReadAndWrite(uint64_t first, uint64_t end, uint64_t old_value,
                            uint64_t new_value);

  enum class MayMiss : uint8_t { kNo, kYes };
  // Until StopCounting, the vCPU increments the word of each page of [first,
  // end) and checks that it reads the value that it wrote last. kYes: an access
  // may also find no memory.
  void StartCounting(uint64_t first, uint64_t end, MayMiss may_miss);
  // Lets the vCPU finish its pass and make a last complete one, and waits for
  // it.
  absl::Status StopCounting();

  // --- The host ---

  // Returns the memory of the pages to the host: they are unmapped, and zero
  // afterwards.
  void Unmap(uint64_t first, uint64_t end);
  // Moves the last slot away from its place in the area, or back.
  enum class Place : uint8_t { kElsewhere, kInArea };
  absl::Status MoveLastSlot(Place place);
  // The word at the start of a page.
  std::atomic_ref<uint64_t> Word(uint64_t page);

 private:
  explicit MemslotArea(std::unique_ptr<Vm> vm) : vm_(std::move(vm)) {}

  uint64_t SlotOf(uint64_t page) const;
  // The slot as it was created. A move does not change its host address.
  const Memslot& slot(uint64_t i) const { return *slots_[i]; }

  std::unique_ptr<Vm> vm_;
  uint64_t pages_per_slot_ = 0;
  std::vector<std::shared_ptr<const Memslot>> slots_;  // the slots as created
  std::atomic<bool> stop_{false};
  std::unique_ptr<VcpuThreads> threads_;
};

}  // namespace mmu::bench

#endif  // BENCH_MEMSLOT_AREA_H_
