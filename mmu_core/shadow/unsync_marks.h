// The shadow pages that are out of sync with the guest's tables, and how to
// find them from the roots (SHD-30, SHD-31).
//
// A page of level 1 may become *unsync*: the guest writes the table that it
// shadows without a fault, and its writes take effect at the latest after its
// next TLB flush. To find such pages then, each page above one has a bit for
// the entry that leads to it, and the number of these bits:
//
//   Rule 1 If a page is unsync, or has unsync children, each parent entry has
//          its bit set in the page that contains the entry.
//   Rule 2 unsync_children is the number of bits set.
//
// A set bit may be out of date: no page below it is unsync any more, or there
// is no page below. Collect clears such bits when it meets them, so a loop that
// collects until nothing is left leaves none behind. Because of rule 1, marking
// stops where a bit was set or a page had unsync children already.
//
// Locks: pages also become unsync under mmu_lock in read mode (SHD-36), where
// parents do not change; lock() excludes other threads that mark. In write mode
// no other thread is active, but lock() is taken all the same.

#ifndef MMU_CORE_SHADOW_UNSYNC_MARKS_H_
#define MMU_CORE_SHADOW_UNSYNC_MARKS_H_

#include <array>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// Some unsync pages below another.
struct UnsyncBatch {
  static constexpr int kCapacity = 16;

  bool Full() const { return count == kCapacity; }
  // No effect if the batch has the page already.
  void Add(ShadowPageState& page);

  std::array<ShadowPageState*, kCapacity> pages;
  int count = 0;
};

// One per VM. Thread-safe under the locks that the witnesses name.
class UnsyncMarks {
 public:
  explicit UnsyncMarks(MmuCounters& counters) : counters_(counters) {}
  UnsyncMarks(const UnsyncMarks&) = delete;
  UnsyncMarks& operator=(const UnsyncMarks&) = delete;

  // KVM's mmu_unsync_pages_lock. Below mmu_lock in any mode; see
  // mmu_core/LOCKING.md.
  Mutex& lock() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  // Makes `page`, of level 1 and with guest PTEs, unsync. No effect if it is
  // already.
  void MarkUnsync(const MmuReadLocked& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkUnsync(const MmuWriteLocked& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // To be called after `page` was linked to `parent`: marks from `parent`
  // upwards if the page, or a page below it, is unsync (SHD-52).
  void NoteLinked(const MmuWriteLocked& held, SpteSlot& parent,
                  const ShadowPageState& page);

  // To be called when `page` was synchronised or is being zapped; no effect if
  // it was not unsync. Leaves the bits above it to Collect.
  void ClearUnsync(const MmuWriteLocked& held, ShadowPageState& page);

  // Adds unsync pages below `top` to `batch`, until it is full or there are no
  // more. Clears bits that lead to no unsync page.
  void Collect(const MmuWriteLocked& held, ShadowPageState& top,
               UnsyncBatch& batch);

 private:
  template <typename Lock>
  void Mark(const Lock& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Marks from `entry`, which leads to an unsync page, upwards.
  template <typename Lock>
  void MarkUpwards(const Lock& held, const SpteSlot& entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CollectBelow(ShadowPageState& page, UnsyncBatch& batch)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  MmuCounters& counters_;
  Mutex mu_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_UNSYNC_MARKS_H_
