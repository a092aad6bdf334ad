// A VM's actions when one of its memslots changes.

#ifndef MMU_CORE_VM_SLOTS_REGION_HOOKS_H_
#define MMU_CORE_VM_SLOTS_REGION_HOOKS_H_

#include <utility>

#include "absl/types/optional.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

// One per change, of one slot or of several together. Externally synchronised
// by slots_lock.
class RegionHooks : public MemslotTableHooks {
 public:
  RegionHooks(VmCore& vm, MmuCost* cost) : vm_(vm), cost_(cost) {}

  // For a change that switches logging on: holds of mmu_lock respect `limit`.
  RegionHooks(VmCore& vm, MmuCost* cost, const SlotLogConfig& log,
              const HoldLimit& limit = {})
      : vm_(vm), cost_(cost), log_(log), limit_(limit) {}

  // Called before the change: a slot that is made joins the dirty log with
  // these sets.
  void JoinLog(DirtyLog::JoiningSlot slot) { joining_ = std::move(slot); }

  // Tells a guest that its memory is removed (WorkloadRunner::MemoryGoes),
  // before the guest can notice.
  void BeforeSwap(RegionChange change, const Memslot* old_slot) override;
  // Zaps the whole VM, or the slot's leafs (SLOT-28).
  void FlushShadowSlot(const Memslot& old_slot) override;
  // If logging was switched on: DL-02 or DL-04. Other changes: DL-01. The CPUs'
  // own logs go on with the first slot that logs and off with the last (DL-09).
  void CommitRegion(RegionChange change, const Memslot* old_slot,
                    const Memslot* new_slot) override;

  // Zaps all MMIO SPTEs if they cannot tell this generation from an old one.
  void GenerationAdvanced(uint64_t generation) override;

  // After logging was switched off: restores the slot's huge pages in all MMUs
  // (DL-06). No effect on a read-only slot. REQUIRES: slots_lock.
  void RecoverHugePages(const Memslot& slot);
  // The totals of all slots: splits when logs were switched on, and recoveries.
  const SplitOutcome& split() const { return split_; }
  const RecoverOutcome& recovered() const { return recovered_; }

 private:
  void CountLoggingSlots(const Memslot* old_slot, const Memslot* new_slot);
  void EnableLog(const Memslot& slot);

  VmCore& vm_;
  MmuCost* const cost_;
  const SlotLogConfig log_;
  const HoldLimit limit_;
  absl::optional<DirtyLog::JoiningSlot> joining_;
  SplitOutcome split_;
  RecoverOutcome recovered_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_SLOTS_REGION_HOOKS_H_
