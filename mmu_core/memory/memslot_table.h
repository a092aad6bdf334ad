// The memslots of a VM: readers find guest memory, one updater changes it.
//
// Readers take no lock. They look at the active set of an address space inside
// an RCU read section; a set never changes, a change publishes another one
// (SLOT-20). Each publication is a swap, and each swap advances the generation
// of the address space (SLOT-21):
//
//   publish the new set, bit 63 of its generation set
//   wait for all readers of the old set (SLOT-24)
//   clear bit 63 and advance by the number of address spaces; free the old set
//
// CREATE and FLAGS_ONLY are one swap (SLOT-26). DELETE and MOVE are two: first
// the slot is replaced by a copy flagged invalid, on which faults retry; then
// its mappings are zapped; then it is removed or replaced (SLOT-25).
//
// All memory that a change needs, for slots, sets and rmaps, is there before
// the first of its swaps. So a change that fails has changed nothing (SLOT-14).

#ifndef MMU_CORE_MEMORY_MEMSLOT_TABLE_H_
#define MMU_CORE_MEMORY_MEMSLOT_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/rmap/lazy_slot_rmaps.h"

namespace mmu {

// What the owner of the page tables does when memslots change. All calls are
// made by SetRegion, with slots_lock held and mmu_lock not.
class MemslotTableHooks {
 public:
  virtual ~MemslotTableHooks() = default;

  // Nothing can fail any more, and nothing has changed yet that a reader sees.
  // `old_slot` is null for kCreate.
  virtual void BeforeSwap(RegionChange change, const Memslot* old_slot) {
    static_cast<void>(change);
    static_cast<void>(old_slot);
  }

  // The invalid copy of `old_slot` is published and every reader sees it: zap
  // all mappings of the slot.
  virtual void FlushShadowSlot(const Memslot& old_slot) = 0;

  // The change is published and every reader sees it; the counters include it.
  // `old_slot` is null for kCreate, `new_slot` for kDelete.
  virtual void CommitRegion(RegionChange change, const Memslot* old_slot,
                            const Memslot* new_slot) = 0;

  // A swap is complete: the generation of its address space is `generation`
  // now (SPTE-44).
  virtual void GenerationAdvanced(uint64_t generation) {
    static_cast<void>(generation);
  }
};

struct MemslotTableOptions {
  // The highest gfn that a slot may have (TRM-06).
  uint64_t max_gfn = 0;
  // x86 has 2: normal and SMM (TRM-07).
  int address_spaces = 2;
  // If given, no set is published while an invalidation is announced (SLOT-23).
  // Must outlive the table.
  InvalidationGate* invalidations = nullptr;
  // If given, new slots get rmaps as it says (SHD-13). Must outlive the table.
  ShadowRootGate* shadow_roots = nullptr;
  // kNo: dirty pages are noted elsewhere only, logging slots have no bitmap
  // (SLOT-51, SLOT-54).
  enum class Bitmaps : uint8_t { kNo, kYes } bitmaps = Bitmaps::kYes;
};

// Thread-safe: readers as Active says, updates under slots_lock.
class MemslotTable {
 public:
  explicit MemslotTable(const MemslotTableOptions& options);
  // No reader and no updater may be left.
  ~MemslotTable() = default;
  MemslotTable(const MemslotTable&) = delete;
  MemslotTable& operator=(const MemslotTable&) = delete;

  // Outer of mmu_lock (mmu_core/LOCKING.md). Its holder waits for RCU readers,
  // so it must not be acquired inside an RCU read section.
  Mutex slots_lock;

  // The set of address space `as_id` (CHECKed) as of now. Valid until the end
  // of the RCU read section it was obtained in, or while slots_lock is held.
  const MemslotSet& Active(int as_id) const {
    MMU_CHECK(as_id >= 0 && as_id < address_spaces());
    return *spaces_[static_cast<size_t>(as_id)].active.load(
        std::memory_order_acquire);
  }

  int address_spaces() const { return static_cast<int>(spaces_.size()); }
  uint64_t max_gfn() const { return options_.max_gfn; }

  // Creates, moves, re-flags or deletes a slot. The checks are made in the
  // order of SLOT-01..14 and the first failure decides; the ErrorDetail has the
  // errno. After an error slots, generations and mappings are as before.
  //
  //   INVALID_ARGUMENT     INVALID_SLOT, INVALID_FLAGS, UNALIGNED,
  //                        INVALID_RANGE, GPA_OUT_OF_RANGE, TOO_MANY_PAGES,
  //                        INVALID_SIZE (EINVAL), REGION_OVERLAP (EEXIST)
  //   NOT_FOUND            MEMSLOT_NOT_FOUND (EINVAL)
  //   FAILED_PRECONDITION  MEMSLOT_IMMUTABLE (EINVAL)
  //   RESOURCE_EXHAUSTED   RESOURCE_EXHAUSTED_MEMORY (ENOMEM)
  //   INTERNAL             ACCOUNTING (EIO)
  //
  // Waits for RCU readers and for announced invalidations: not to be called
  // inside an RCU read section or with mmu_lock held.
  absl::Status SetRegion(const RegionRequest& request, MemslotTableHooks& hooks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // Switches the logging of slots of `as_id` on or off: what SetRegion does for
  // one slot with another kMemslotLogDirtyPages, for all of them in one swap,
  // however many there are. The hooks are called slot by slot, in the order of
  // `slots`. Those that log, or do not, already are left alone. REQUIRES: the
  // slots exist, none is named twice.
  //
  // `when_certain` is called once nothing can fail any more, before the swap;
  // not if nothing is to be switched.
  //
  // RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY (ENOMEM): nothing changed.
  // Waits as SetRegion.
  struct LoggedSlot {
    uint32_t id = 0;
    // If logging goes on: the bitmap to mark in. Null: one is made.
    std::shared_ptr<DirtyBitmap> dirty_bitmap = nullptr;
  };
  enum class Logging : uint8_t { kOff, kOn };
  absl::Status SwitchLogging(int as_id, Logging logging,
                             absl::Span<const LoggedSlot> slots,
                             MemslotTableHooks& hooks,
                             absl::FunctionRef<void()> when_certain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // The checks of SetRegion alone: what it would do, or its error. Holds as
  // long as slots_lock is not let go of. The memory of a slot that shall be
  // created need not be there yet.
  absl::StatusOr<RegionChange> CheckRegion(const RegionRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // Whether bitmaps made from now on start all dirty. Replaces the value
  // before; slots that log already are not affected (DL-14).
  void SetDirtyLogInitiallySet(InitiallySet initially_set)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock) {
    initially_set_ = initially_set;
  }

  // Pages of all slots, and number of slots that log dirty pages (SLOT-29).
  uint64_t total_pages() const {
    return total_pages_.load(std::memory_order_relaxed);
  }
  int logging_slots() const {
    return logging_slots_.load(std::memory_order_relaxed);
  }

  // Makes the guards of SLOT-08 and SLOT-09 reachable.
  void SetTotalPagesForTest(uint64_t pages) {
    total_pages_.store(pages, std::memory_order_relaxed);
  }

  // Makes SPTE-44 reachable. A generation of address space `as_id` is
  // congruent to it modulo the number of spaces.
  void SetGenerationForTest(int as_id, uint64_t generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

 private:
  using SlotPtr = MemslotSet::SlotPtr;

  struct Space {
    // Owns what `active` points to. Changed under slots_lock.
    std::unique_ptr<MemslotSet> owner;
    // Published with release; readers acquire.
    std::atomic<const MemslotSet*> active = nullptr;
  };

  // SLOT-12 and SLOT-13, of a slot that shall be created or moved.
  absl::Status CheckPlace(const RegionRequest& request,
                          const Memslot* old_slot) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // What a change needs. These return false or null if memory is not enough, or
  // operator new throws (base/with_memory.h); they change nothing.
  struct Change {
    // Of a slot that is deleted or moved; else null.
    std::unique_ptr<MemslotSet> invalid_set;
    std::unique_ptr<MemslotSet> new_set;
    SlotPtr new_slot;  // null if it is deleted
  };
  bool Prepare(const RegionRequest& request, RegionChange change,
               const Memslot* old_slot, Change& prepared) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // The slot that `request` describes (SLOT-27).
  SlotPtr MakeSlot(const RegionRequest& request, RegionChange change,
                   const Memslot* old_slot) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // The slot with other flags; `dirty_bitmap` may be null.
  SlotPtr WithFlags(const Memslot& old_slot, uint32_t flags,
                    std::shared_ptr<DirtyBitmap> dirty_bitmap) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // Gives `slot`, which logs, the bitmap that it needs: `kept` unless null.
  bool SetBitmap(std::shared_ptr<DirtyBitmap> kept, Memslot& slot) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // One swap: `next` becomes the active set. `rmaps`: of a slot in it that has
  // been given to PrepareSlot and was in no set before; else null.
  void Publish(int as_id, std::unique_ptr<MemslotSet> next,
               LazySlotRmaps* rmaps, MemslotTableHooks& hooks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  void Account(const Memslot* old_slot, const Memslot* new_slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  const MemslotTableOptions options_;
  std::vector<Space> spaces_;  // size immutable
  InitiallySet initially_set_ ABSL_GUARDED_BY(slots_lock) = InitiallySet::kNo;
  // Written under slots_lock; relaxed: read for statistics.
  std::atomic<uint64_t> total_pages_ = 0;
  std::atomic<int> logging_slots_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_TABLE_H_
