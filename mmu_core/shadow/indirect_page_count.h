// How many shadow pages stand for guests' tables, so that a write to guest
// memory need not look for one as long as there are none (SHD-40, LCK-06).
//
// RACE-32. Store buffers: a write to guest memory that turns out to be one to a
// guest's table, against the first page that shadows the table.
//
//   emulated write                     new page
//   W1 store the guest's entry         N1 count of indirect pages + 1
//   W2 full barrier                    N2 full barrier
//   W3 load the count                  N3 write-protect, flush
//                                      N4 load the guest's entry, build the
//                                      SPTE
//
// One of W3 and N4 sees what the other side stored. If W3 does, the writer
// takes mmu_lock and drops what was built from an older entry; if it does not,
// it need not look for shadow pages at all, and N4 read the new entry. A write
// by the guest itself is not emulated: after N3 it faults, before it the flush
// waited for it.

#ifndef MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_
#define MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_

#include <atomic>
#include <cstdint>

namespace mmu {

// KVM's indirect_shadow_pages. Changed under mmu_lock in write mode.
// Thread-safe.
class IndirectPageCount {
 public:
  // Before the guest's entries are read (N1, N2).
  void Add() {
    count_.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  void Remove() { count_.fetch_sub(1, std::memory_order_relaxed); }

  // After guest memory was written (W2, W3). If it says no, pages that come
  // from now on see what was written.
  bool Any() const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return count_.load(std::memory_order_relaxed) != 0;
  }

 private:
  std::atomic<uint64_t> count_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_
