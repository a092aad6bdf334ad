// The dirty log of a VM: switching it on and off, and re-protecting what its
// owner clears (section 8 of the behaviour reference).
//
// Order on the way in (DL-02): split, protect, flush. Order on the way out of
// a clear (DL-10, DL-12): take bits, protect, flush, return; the copy comes
// after. Who may do what, and where pages are: dirty/dirty_log.h.

#ifndef MMU_CORE_VM_DIRTY_LOGGING_H_
#define MMU_CORE_VM_DIRTY_LOGGING_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/dirty/dirty_bitmap.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/dirty/log_owner.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/stats/mmu_cost.h"

namespace mmu {

struct VmState;

// NOT_FOUND MEMSLOT_NOT_FOUND.
absl::Status NoSuchSlot(uint32_t slot);

// Takes into the open epochs what rings and CPUs' logs have noted so far. Not
// under mmu_lock. `cost` may be null.
void TakeInNotedPages(VmState& vm, MmuCost* cost);

// The sets of a slot that is about to be made, with all of its pages open, if
// the VM has a log that new slots join; also the bitmap for the slot, null if
// slots have none. Changes nothing. RESOURCE_EXHAUSTED
// RESOURCE_EXHAUSTED_MEMORY.
struct NewSlotLog {
  std::shared_ptr<SlotLog> log;  // null: the slot does not log
  std::shared_ptr<DirtyBitmap> slot_bitmap;
};
absl::StatusOr<NewSlotLog> PrepareNewSlotLog(const VmState& vm, uint32_t slot,
                                             uint64_t npages);

// Keeps all vCPUs out of the guest while it exists, so that no page gets dirty.
// Not to be made under slots_lock, nor in an RCU read section.
class HeldVcpus {
 public:
  explicit HeldVcpus(VmState& vm);
  ~HeldVcpus() { LetGo(); }
  HeldVcpus(const HeldVcpus&) = delete;
  HeldVcpus& operator=(const HeldVcpus&) = delete;

  // They may go on now.
  void LetGo();

 private:
  VmState* vm_;  // null: let go
};

// Has all vCPUs empty their CPUs' logs: when it returns, every page written
// before the call is marked (DL-31). Nothing to do without PML. Not under
// mmu_lock. `cost` may be null.
void SyncCpuDirtyLogs(VmState& vm, MmuCost* cost);

// The functions below are the bodies of the Vm functions of the same names.

absl::StatusOr<DirtyLogView> StartDirtyLog(VmState& vm,
                                           const DirtyLogStart& start,
                                           MmuCost* cost);
absl::StatusOr<absl::optional<DirtyLogView>> CheckDirtyLogStart(
    const VmState& vm, const DirtyLogStart& start);
absl::StatusOr<DirtyLogView> AcquireDirtyLog(VmState& vm, const LogClaim& claim,
                                             absl::optional<LogId> log_id,
                                             LogOwner::Force force,
                                             MonotonicTime now,
                                             LogOwner::Acquired* acquired);
absl::StatusOr<SealOutcome> SealDirtyLog(VmState& vm, const LogCall& call,
                                         uint64_t acknowledged_epoch,
                                         MmuCost* cost);
absl::Status ReadDirtyLog(VmState& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words);
absl::Status ReadInFlight(const VmState& vm, absl::optional<LogId> log_id,
                          uint32_t slot, uint64_t epoch, uint64_t first_page,
                          absl::Span<uint64_t> words);
absl::Status CheckDirtyLogEpoch(const VmState& vm, absl::optional<LogId> log_id,
                                uint64_t epoch, LogPages pages);
absl::StatusOr<ClearResult> ClearDirtyLog(VmState& vm, const LogCall& call,
                                          uint32_t slot, uint64_t epoch,
                                          uint64_t first_page,
                                          uint64_t page_count,
                                          absl::Span<const uint64_t> mask,
                                          MmuCost* cost);
absl::StatusOr<AcknowledgeResult> AcknowledgePages(VmState& vm,
                                                   const LogCall& call,
                                                   uint64_t epoch);
absl::StatusOr<AcknowledgeResult> AcknowledgePages(
    VmState& vm, const LogCall& call, uint64_t epoch, uint32_t slot,
    uint64_t first_page, uint64_t page_count, absl::Span<const uint64_t> mask);
absl::StatusOr<StopResult> StopDirtyLog(VmState& vm, const DirtyLogStop& stop,
                                        MmuCost* cost);
// Nothing if there was no log, or its ttl is not over. `view`: it, as it was.
absl::optional<StopResult> StopAbandonedDirtyLog(VmState& vm, MonotonicTime now,
                                                 DirtyLogView* view,
                                                 MmuCost* cost);

// The rules of a clear's range (DL-20..23). `slot_pages` 0: no such slot, of
// which DL-20 comes first.
absl::Status CheckClearRange(uint64_t slot_pages, uint64_t first_page,
                             uint64_t page_count, size_t mask_words);

}  // namespace mmu

#endif  // MMU_CORE_VM_DIRTY_LOGGING_H_
