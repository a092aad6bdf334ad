// When the memslots of a VM get rmaps (SHD-13).
//
// With the TDP MMU, a VM needs rmaps only once it has a shadow root: at that
// point all slots get rmaps, and later slots get them when they are made.
// Without the TDP MMU every slot has rmaps from the start.
//
// slots_arch_lock orders the two. It is a separate lock because a vCPU that
// loads a root is in an RCU section, and an updater of the slots waits for that
// section under slots_lock. So an updater holds slots_arch_lock while it
// prepares a slot and again while it publishes the slot, but not while it waits
// for readers (SLOT-24), which it does in between if a slot moves.
//
// RACE-30: the first shadow root against the creation of a slot, and against
// the users of the rmaps.
//
//   1. Updater: slots_arch_lock. Slots have no rmaps yet, so the new slot gets
//      none, but it is recorded as prepared. Unlocks.
//   2. Root: slots_arch_lock. Gives rmaps to all published slots and to the
//      prepared slot. Sets the flag (a store with release), unlocks.
//   3. Updater: slots_arch_lock. Publishes the slot, which has rmaps. Unlocks.
//   4. Updater with another slot: slots_arch_lock. Slots have rmaps, so it
//      gives the new slot its rmaps when it prepares the slot.
//   5. Any thread: sees (acquire) that slots have rmaps, looks into any
//      published slot, and finds its rmaps.
//
// If 2 comes before 1, step 4 applies; if 2 comes after 3, the slot is among
// the published ones. Publication is under the lock, so 2 cannot read the slots
// from before a publication and the prepared slot from after it. Publication
// needs no memory, so it cannot fail: an updater that has begun to change slots
// can always finish.
//
// If two vCPUs load a first root, the second waits and finds the work done.

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

// A memslot's rmaps, or a placeholder until they are made. Successive copies of
// one slot with different flags share it; a slot that moves gets a new one
// (SLOT-27). Thread-safe.
class LazySlotRmaps {
 public:
  // For the slot at `range`.
  explicit LazySlotRmaps(GfnRange range) : range_(range) {}
  ~LazySlotRmaps() { delete rmaps_.load(std::memory_order_relaxed); }
  LazySlotRmaps(const LazySlotRmaps&) = delete;
  LazySlotRmaps& operator=(const LazySlotRmaps&) = delete;

  // Null if there are no rmaps yet. Once made, the rmaps stay.
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

  // If true, every published slot has rmaps. Never becomes false again.
  bool SlotsHaveRmaps() const {
    return slots_have_rmaps_.load(std::memory_order_acquire);
  }

  // Above mmu_lock, below slots_lock; see mmu_core/LOCKING.md.
  Mutex& slots_arch_lock() ABSL_LOCK_RETURNED(slots_arch_lock_) {
    return slots_arch_lock_;
  }

  // To be called before a shadow root is made, without mmu_lock. `slots` lists
  // the rmaps of all published slots of all address spaces; it is called at
  // most once, under slots_arch_lock. RESOURCE_EXHAUSTED (ENOMEM) if the host
  // has no memory: the root cannot be made then. Rmaps that some slots already
  // got stay, and a further attempt continues from there.
  absl::Status BeforeShadowRoot(
      absl::FunctionRef<std::vector<LazySlotRmaps*>()> slots);

  // To be called for a slot that is about to be published. After OK, the slot
  // has rmaps by the time they are needed. Same error as BeforeShadowRoot; then
  // the slot is not prepared. REQUIRES: the previously prepared slot was
  // published. `slot` must live until it is published.
  absl::Status PrepareSlot(LazySlotRmaps& slot);
  // Calls `publish` to publish the slot. `publish` must not wait: a vCPU that
  // loads its first shadow root waits for slots_arch_lock in an RCU section.
  // Cannot fail. REQUIRES: PrepareSlot was called for `slot`.
  void PublishSlot(LazySlotRmaps& slot, absl::FunctionRef<void()> publish);

 private:
  absl::Status Allocate(LazySlotRmaps& slot)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(slots_arch_lock_);

  Mutex slots_arch_lock_;
  // The slot that is prepared and not published yet, or null.
  LazySlotRmaps* prepared_ ABSL_GUARDED_BY(slots_arch_lock_) = nullptr;
  std::atomic<bool> slots_have_rmaps_;  // release/acquire; set under the lock
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_LAZY_SLOT_RMAPS_H_
