// The number of shadow pages that shadow guests' tables. While it is 0, a write
// to guest memory need not look for a shadow page (SHD-40, LCK-06).
//
// RACE-32. Store buffers: an emulated write to guest memory that changes a
// guest's table, against the first page that shadows the table.
//
//   emulated write                     new page
//   W1 store the guest's entry         N1 count of indirect pages + 1
//   W2 full barrier                    N2 full barrier
//   W3 load the count                  N3 write-protect, flush
//                                      N4 load the guest's entry, build the
//                                      SPTE
//
// At least one of W3 and N4 sees the other side's store. If W3 sees N1, the
// writer takes mmu_lock and drops SPTEs built from an older entry. If it does
// not, the writer need not look for shadow pages, because N4 read the new
// entry. A write by the guest itself is not emulated: after N3 it faults;
// before N3 the flush waited for it.

#ifndef MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_
#define MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_

#include <atomic>
#include <cstdint>

namespace mmu {

// KVM's indirect_shadow_pages. Changed under mmu_lock in write mode.
// Thread-safe.
class IndirectPageCount {
 public:
  // To be called before the guest's entries are read (N1, N2).
  void Add() {
    count_.fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  void Remove() { count_.fetch_sub(1, std::memory_order_relaxed); }

  // To be called after guest memory was written (W2, W3). If false, pages made
  // from now on see the write.
  bool Any() const {
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return count_.load(std::memory_order_relaxed) != 0;
  }
  // Exact under mmu_lock in any mode.
  uint64_t Count() const { return count_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> count_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_INDIRECT_PAGE_COUNT_H_
