// When the memslots of a VM get rmaps (SHD-13).
//
// With the TDP MMU, a VM needs rmaps only once it has a shadow root: then all
// slots get them at once, and from then on each slot when it is made. Without
// the TDP MMU each slot has them from the start.
//
// slots_arch_lock keeps the two apart. It is a lock of its own, because a vCPU
// that loads a root is in an RCU section that an updater of the slots waits
// for, under slots_lock. So an updater holds slots_arch_lock while it prepares
// a slot and again while it publishes it, and not while it waits for readers
// (SLOT-24), which it does in between if a slot moves.
//
// RACE-30: the first shadow root against a slot that is made, and against those
// who rely on the rmaps.
//
//   1. Updater: slots_arch_lock. Slots have no rmaps: nor gets its new one any,
//      but it is noted as prepared. Unlocks.
//   2. Root: slots_arch_lock. Gives rmaps to all slots that are published, and
//      to the prepared one. Says so (a store with release), unlocks.
//   3. Updater: slots_arch_lock. Publishes the slot, which has rmaps. Unlocks.
//   4. Updater with another slot: slots_arch_lock. Slots have rmaps, so it
//      gives the new one its own when it prepares it.
//   5. Anybody: sees (acquire) that slots have rmaps, looks into any published
//      slot, and finds them.
//
// With 2 before 1, step 4 is what happens; with 2 after 3, the slot is among
// the published ones. Publication is under the lock, so that 2 cannot look at
// the slots before it and at what is prepared after it. It needs no memory, so
// it cannot fail: an updater that has begun to change slots can end it.
//
// Two vCPUs that load a first root: the second waits, and finds it done.

#ifndef MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_
#define MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_

#include <atomic>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/rmap/slot_rmaps.h"

namespace mmu {

// A memslot's rmaps, or their place as long as there are none. Shared by the
// copies of one slot that follow each other with other flags; a slot that
// moves gets another (SLOT-27).
// Thread-safe.
class LazySlotRmaps {
 public:
  // For the slot at `range`.
  explicit LazySlotRmaps(GfnRange range) : range_(range) {}
  ~LazySlotRmaps() { delete rmaps_.load(std::memory_order_relaxed); }
  LazySlotRmaps(const LazySlotRmaps&) = delete;
  LazySlotRmaps& operator=(const LazySlotRmaps&) = delete;

  // Null if there are none; once there are, they stay.
  SlotRmaps* get() const { return rmaps_.load(std::memory_order_acquire); }

 private:
  friend class ShadowRootGate;

  const GfnRange range_;
  std::atomic<SlotRmaps*> rmaps_{nullptr};  // release/acquire; see RACE-30
};

// One per VM. Thread-safe.
class ShadowRootGate {
 public:
  enum class TdpMmu { kEnabled, kDisabled };

  explicit ShadowRootGate(TdpMmu tdp_mmu)
      : slots_have_rmaps_(tdp_mmu == TdpMmu::kDisabled) {}

  // If true, each published slot has rmaps. Never becomes false again.
  bool SlotsHaveRmaps() const {
    return slots_have_rmaps_.load(std::memory_order_acquire);
  }

  // Above mmu_lock, below slots_lock; see mmu_core/LOCKING.md.
  Mutex& slots_arch_lock() ABSL_LOCK_RETURNED(slots_arch_lock_) {
    return slots_arch_lock_;
  }

  // To be called before a shadow root is made, without mmu_lock. `slots` lists
  // the rmaps of all slots that are published, of all address spaces; it is
  // called at most once, under slots_arch_lock. RESOURCE_EXHAUSTED (ENOMEM) if
  // the host has no memory: the root cannot be made, rmaps that some slots got
  // stay, and another try goes on from there.
  absl::Status BeforeShadowRoot(
      absl::FunctionRef<std::vector<LazySlotRmaps*>()> slots);

  // To be called for a slot that is about to be published: when this returned
  // OK, it has rmaps by the time they are needed. The same error as above; then
  // the slot is not prepared. One slot at a time: REQUIRES that the one before
  // was published. `slot` stays until it is.
  absl::Status PrepareSlot(LazySlotRmaps& slot);
  // Has it published by `publish`, which waits for nobody: a vCPU that loads
  // its first shadow root waits for slots_arch_lock in an RCU section. Cannot
  // fail. REQUIRES: PrepareSlot was called for it.
  void PublishSlot(LazySlotRmaps& slot, absl::FunctionRef<void()> publish);

 private:
  absl::Status Allocate(LazySlotRmaps& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_arch_lock_);

  Mutex slots_arch_lock_;
  // Prepared and not published yet, or null.
  LazySlotRmaps* prepared_ ABSL_GUARDED_BY(slots_arch_lock_) = nullptr;
  std::atomic<bool> slots_have_rmaps_;  // release/acquire; set under the lock
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_
