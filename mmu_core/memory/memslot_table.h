// The memslots of a VM: many readers find guest memory, one updater at a time
// changes the slots.
//
// Readers take no lock. They look at the active set of an address space inside
// an RCU read section. A set never changes: a change publishes another set
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
// All memory that a change needs, for slots, sets and rmaps, is allocated
// before the first of its swaps. So a change that fails has changed nothing
// (SLOT-14).

#ifndef MMU_CORE_MEMORY_MEMSLOT_TABLE_H_
#define MMU_CORE_MEMORY_MEMSLOT_TABLE_H_

#include <atomic>
#include <cerrno>
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
#include "mmu_core/sync/rcu.h"

namespace mmu {

// The reactions of the page tables' owner to changes of memslots. All functions
// are called by MemslotTable's updates, with slots_lock held and mmu_lock not
// held.
class MemslotTableHooks {
 public:
  virtual ~MemslotTableHooks() = default;

  // The change can no longer fail, and readers have seen none of it yet.
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

  // A swap is complete: the generation of its address space is now `generation`
  // (SPTE-44).
  virtual void GenerationAdvanced(uint64_t generation) {
    static_cast<void>(generation);
  }
};

struct MemslotTableOptions {
  // The highest gfn that a slot may have (TRM-06).
  uint64_t max_gfn = 0;
  // The errno for a slot that does not fit below it: EFAULT on arm64 (SLOT-13).
  int errno_above_max_gfn = EINVAL;
  // The smallest page of the host, of which slots are multiples (SLOT-03).
  uint64_t host_page_bytes = kPageSize;
  // x86 has 2: normal and SMM (TRM-07).
  int address_spaces = 2;
  // If set, no set of memslots is published while an invalidation is announced
  // (SLOT-23). Must outlive the table.
  InvalidationGate* invalidations = nullptr;
  // If set, decides whether new slots get rmaps (SHD-13). Must outlive the
  // table.
  ShadowRootGate* shadow_roots = nullptr;
  // kNo: slots that log have no bitmap, because dirty pages are marked only
  // elsewhere (SLOT-51, SLOT-54).
  enum class Bitmaps : uint8_t { kNo, kYes } bitmaps = Bitmaps::kYes;
};

// Thread-safe: Active states the rule for readers; updates need slots_lock.
class MemslotTable {
 public:
  explicit MemslotTable(const MemslotTableOptions& options);
  // REQUIRES: no reader and no updater is left.
  ~MemslotTable() = default;
  MemslotTable(const MemslotTable&) = delete;
  MemslotTable& operator=(const MemslotTable&) = delete;

  // Outer to mmu_lock (mmu_core/LOCKING.md). Its holder waits for RCU readers,
  // so it must not be acquired inside an RCU read section.
  Mutex slots_lock;

  // The current set of address space `as_id` (CHECKed). Valid until the end of
  // the RCU read section it was obtained in, or while slots_lock is held.
  // REQUIRES: one of the two.
  const MemslotSet& Active(int as_id) const {
    MMU_CHECK(as_id >= 0 && as_id < address_spaces());
    MMU_DCHECK(InRcuReadSection() || slots_lock.IsHeld());
    return *spaces_[static_cast<size_t>(as_id)].active.load(
        std::memory_order_acquire);
  }

  int address_spaces() const { return static_cast<int>(spaces_.size()); }
  uint64_t max_gfn() const { return options_.max_gfn; }

  // Creates, moves, re-flags or deletes a slot. The checks are made in the
  // order of SLOT-01..14 and the first failure is returned; the ErrorDetail has
  // the errno. After an error slots, generations and mappings are unchanged.
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

  // Switches the logging of slots of `as_id` on or off. The effect is that of
  // SetRegion with a changed kMemslotLogDirtyPages for each slot, but all slots
  // change in one swap. The hooks are called slot by slot, in the order of
  // `slots`. A slot whose logging already is as wanted is not touched.
  // REQUIRES: the slots exist, none is named twice.
  //
  // `when_certain` is called once the change can no longer fail, before the
  // swap. It is not called if no slot has to be switched.
  //
  // RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY (ENOMEM): nothing changed.
  // Waits as SetRegion.
  struct LoggedSlot {
    uint32_t id = 0;
    // The bitmap to mark in if logging is switched on. Null: a bitmap is
    // allocated.
    std::shared_ptr<DirtyBitmap> dirty_bitmap = nullptr;
  };
  enum class Logging : uint8_t { kOff, kOn };
  absl::Status SwitchLogging(int as_id, Logging logging,
                             absl::Span<const LoggedSlot> slots,
                             MemslotTableHooks& hooks,
                             absl::FunctionRef<void()> when_certain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // Makes only the checks of SetRegion. Returns the change that SetRegion would
  // make, or its error. The result holds until slots_lock is released. The
  // memory of a slot to be created need not exist yet.
  absl::StatusOr<RegionChange> CheckRegion(const RegionRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // Sets whether bitmaps made from now on start all dirty. Slots that already
  // log are not affected (DL-14).
  void SetDirtyLogInitiallySet(InitiallySet initially_set)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock) {
    initially_set_ = initially_set;
  }

  // The pages of all slots, and the number of slots that log dirty pages
  // (SLOT-29).
  uint64_t total_pages() const {
    return total_pages_.load(std::memory_order_relaxed);
  }
  int logging_slots() const {
    return logging_slots_.load(std::memory_order_relaxed);
  }

  // Lets a test reach the guards of SLOT-08 and SLOT-09.
  void SetTotalPagesForTest(uint64_t pages) {
    total_pages_.store(pages, std::memory_order_relaxed);
  }

  // Lets a test reach SPTE-44. A generation of address space `as_id` is
  // congruent to `as_id` modulo the number of spaces.
  void SetGenerationForTest(int as_id, uint64_t generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

 private:
  using SlotPtr = MemslotSet::SlotPtr;

  struct Space {
    // Owns the set that `active` points to. Changed under slots_lock.
    std::unique_ptr<MemslotSet> owner;
    // Published with release; readers acquire.
    std::atomic<const MemslotSet*> active = nullptr;
  };

  // Checks SLOT-12 and SLOT-13 for a slot to be created or moved.
  absl::Status CheckPlace(const RegionRequest& request,
                          const Memslot* old_slot) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // The memory that a change needs. The functions below return false or null if
  // memory runs out or operator new throws (base/with_memory.h); then they have
  // changed nothing.
  struct Change {
    // Set if a slot is deleted or moved; else null.
    std::unique_ptr<MemslotSet> invalid_set;
    std::unique_ptr<MemslotSet> new_set;
    SlotPtr new_slot;  // null if the slot is deleted
  };
  bool Prepare(const RegionRequest& request, RegionChange change,
               const Memslot* old_slot, Change& prepared)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // The slot that `request` describes (SLOT-27).
  SlotPtr MakeSlot(const RegionRequest& request, RegionChange change,
                   const Memslot* old_slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // A copy of the slot with other flags; `dirty_bitmap` may be null.
  SlotPtr WithFlags(const Memslot& old_slot, uint32_t flags,
                    std::shared_ptr<DirtyBitmap> dirty_bitmap) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  // Gives `slot`, which logs, the bitmap that it needs: `kept`, or a new one if
  // `kept` is null.
  bool SetBitmap(std::shared_ptr<DirtyBitmap> kept, Memslot& slot) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  // Makes one swap: `next` becomes the active set. `rmaps`: the rmaps of a slot
  // in `next` that was passed to PrepareSlot and was in no set before; else
  // null.
  void Publish(int as_id, std::unique_ptr<MemslotSet> next,
               LazySlotRmaps* rmaps, MemslotTableHooks& hooks)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);
  void Account(const Memslot* old_slot, const Memslot* new_slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_lock);

  const MemslotTableOptions options_;
  std::vector<Space> spaces_;  // size immutable
  InitiallySet initially_set_ ABSL_GUARDED_BY(slots_lock) = InitiallySet::kNo;
  uint64_t last_uid_ ABSL_GUARDED_BY(slots_lock) = 0;  // of slots
  // Written under slots_lock. Relaxed: read for statistics.
  std::atomic<uint64_t> total_pages_ = 0;
  std::atomic<int> logging_slots_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_TABLE_H_
