// When the memslots of a VM get rmaps (SHD-13).
//
// With the TDP MMU, a VM needs rmaps only once it has a shadow root: then all
// slots get them at once, and from then on each slot when it is made. Without
// the TDP MMU each slot has them from the start.
//
// slots_arch_lock keeps the two apart. It is a lock of its own, because a vCPU
// that loads a root is in an RCU section that an updater of the slots waits
// for, under slots_lock. So an updater holds slots_arch_lock from PrepareSlot
// to the publication of the slot, and drops it before it waits for readers
// (SLOT-24).
//
// RACE-30: the first shadow root against a slot that is made, and against those
// who rely on the rmaps.
//
//   1. Updater: slots_arch_lock. Slots have no rmaps: nor gets its new one any.
//      Publishes it, unlocks.
//   2. Root: slots_arch_lock. Gives rmaps to all slots that are published: the
//      new one is among them. Says so (a store with release), unlocks.
//   3. Updater with another slot: slots_arch_lock. Slots have rmaps, so it
//      gives the new one its own before it publishes it.
//   4. Anybody: sees (acquire) that slots have rmaps, looks into any published
//      slot, and finds them.
//
// Without the lock, between looking and publishing in 1, 2 would miss the slot.
// Two vCPUs that load a first root: the second waits, and finds it done.

#ifndef MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_
#define MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_

#include <atomic>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/sync/mutex.h"

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

  // To be called for a slot that is about to be published. Gives it rmaps if
  // slots have them; the same error as above.
  absl::Status PrepareSlot(LazySlotRmaps& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_arch_lock_);
  // The same, and has it published by `publish` under the lock, unless it
  // fails. `publish` does not wait for RCU readers.
  absl::Status PublishSlot(LazySlotRmaps& slot,
                           absl::FunctionRef<void()> publish);

 private:
  absl::Status Allocate(LazySlotRmaps& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_arch_lock_);

  Mutex slots_arch_lock_;
  std::atomic<bool> slots_have_rmaps_;  // release/acquire; set under the lock
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_
