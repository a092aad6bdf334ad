#include "mmu_core/vm/logging/log_clear.h"

#include <memory>
#include <utility>

#include "mmu_core/base/error.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/vm/logging/clear_range.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/find_log.h"
#include "mmu_core/vm/logging/reprotect.h"

namespace mmu {
namespace {

// Puts pages in flight. Write-protects them again, unless the reset of a ring
// does so.
absl::StatusOr<ClearResult> ClearLocked(VmCore& vm, VmDirtyLog& log,
                                        const LogCall& call, uint32_t slot_id,
                                        uint64_t epoch, uint64_t first_page,
                                        uint64_t page_count,
                                        absl::Span<const uint64_t> mask,
                                        MmuCost* cost)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(vm.slots.slots_lock) {
  if (absl::Status s = Admit(log, call); !s.ok()) return s;
  const absl::StatusOr<const Memslot*> slot =
      WithMemory("pages", "clear dirty pages", [&] {
        vm.slots.slots_lock.AssertHeld();
        return SlotForRange(vm, slot_id, first_page, page_count, mask.size());
      });
  if (!slot.ok()) return slot.status();
  const absl::StatusOr<DirtyLog::Flight> flight =
      WithMemory("pages", "clear dirty pages", [&] {
        return log.log.TakeIntoFlight(call, slot_id, epoch, first_page, mask);
      });
  if (!flight.ok()) return flight.status();
  ClearResult result;
  // With rings, every writable page has an entry in a ring, and the reset of
  // that entry write-protects the page.
  if (!vm.has_dirty_rings() || log.config.initially_set == InitiallySet::kYes) {
    result = Reprotect(vm, **slot, log.config, flight->moved, cost);
  }
  result.cleared_page_count = flight->moved_page_count;
  result.already_in_flight_page_count = flight->already_in_flight_page_count;
  result.still_sealed_page_count = flight->still_sealed_page_count;
  result.already_clean_page_count = flight->already_clean_page_count;
  return result;
}

}  // namespace

absl::StatusOr<ClearResult> ClearDirtyLog(VmCore& vm, const LogCall& call,
                                          uint32_t slot_id, uint64_t epoch,
                                          uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost) {
  absl::StatusOr<ClearResult> result;
  RingReset owed;
  {
    MutexLock lock(vm.slots.slots_lock);
    const absl::StatusOr<std::shared_ptr<VmDirtyLog>> log = LogOf(vm);
    if (!log.ok()) return log.status();
    result = ClearLocked(vm, **log, call, slot_id, epoch, first_page,
                         page_count, mask, cost);
    if (!result.ok()) return result;
    // Includes pages of other slots: they stay in their sets.
    if (vm.has_dirty_rings()) {
      owed = ResetDirtyRingsLocked(vm, cost);
      // Another clear may have reset the entries of these pages a moment ago,
      // and not flushed yet:
      //   1. A frees and protects page X of this slot, drops slots_lock
      //   2. B (this) finds no entry to free    3. B returns, X is copied
      //   4. a vCPU writes X through its TLB    5. A flushes
      // The write of 4 would then be in no log. So every clear flushes, even if
      // it finds X in flight already: B may be A's call, repeated.
      owed.count +=
          result->cleared_page_count + result->already_in_flight_page_count;
    }
  }
  FinishDirtyRingReset(vm, std::move(owed), cost);
  vm.counters.cleared_pages.fetch_add(result->cleared_page_count,
                                      std::memory_order_relaxed);
  return result;
}

}  // namespace mmu
