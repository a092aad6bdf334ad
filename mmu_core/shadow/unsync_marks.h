// Which shadow pages are out of step with the guest's tables, and the way to
// them from the roots (SHD-30, SHD-31).
//
// A page of level 1 may become *unsync*: the guest writes the table behind it
// without a fault, and what it wrote holds after its next TLB flush at the
// latest. To find such pages then, each page above one has a bit for the entry
// that leads there, and their number:
//
//   INV-1  A page is unsync, or has unsync children: each parent entry has its
//          bit set in the page that it is in.
//   INV-2  unsync_children is the number of bits set.
//
// A bit may be out of date the other way: nothing unsync is below it any more,
// or nothing at all. Collect clears such bits when it comes by, so a loop that
// collects until nothing is left, leaves none behind. Because of INV-1 marking
// stops where a bit was set or a page had unsync children already.
//
// Locks: pages become unsync under mmu_lock in read mode, too (SHD-36), where
// parents stay what they are; lock() keeps those who mark apart. In write mode
// nobody else is about, and it is taken all the same.

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
  // No page twice.
  void Add(ShadowPageState& page);

  std::array<ShadowPageState*, kCapacity> pages;
  int count = 0;
};

// One per VM. Thread-safe with the witnesses named.
class UnsyncMarks {
 public:
  explicit UnsyncMarks(MmuCounters& counters) : counters_(counters) {}
  UnsyncMarks(const UnsyncMarks&) = delete;
  UnsyncMarks& operator=(const UnsyncMarks&) = delete;

  // KVM's mmu_unsync_pages_lock. Below mmu_lock in any mode; see
  // mmu_core/LOCKING.md.
  Mutex& lock() ABSL_LOCK_RETURNED(mu_) { return mu_; }

  // Makes `page`, of level 1 and with guest PTEs, unsync. No effect if it is.
  void MarkUnsync(const MmuReadLocked& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void MarkUnsync(const MmuWriteLocked& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // `page` was linked to `parent`: marks from there on upwards if something is
  // unsync at or below it (SHD-52).
  void NoteLinked(const MmuWriteLocked& held, SpteSlot& parent,
                  const ShadowPageState& page);

  // `page` is in step again, or goes; no effect if it was not unsync. The bits
  // above it are left to Collect.
  void ClearUnsync(const MmuWriteLocked& held, ShadowPageState& page);

  // Adds unsync pages below `top` to `batch`, until that is full or there are
  // no more. Clears bits that lead to none.
  void Collect(const MmuWriteLocked& held, ShadowPageState& top,
               UnsyncBatch& batch);

 private:
  template <typename Lock>
  void Mark(const Lock& held, ShadowPageState& page)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `entry` leads to something unsync.
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
