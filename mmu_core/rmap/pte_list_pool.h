// Memory for descriptors of SPTE lists (rmap/pte_list_desc.h).
//
// The pool takes blocks from the kernel, faults each in at once and hands them
// out as descriptors; returned descriptors are reused. Descriptors are taken
// before mmu_lock is (rmap/pte_list_cache.h), but become free under mmu_lock,
// so returning them takes no lock.

#ifndef MMU_CORE_RMAP_PTE_LIST_POOL_H_
#define MMU_CORE_RMAP_PTE_LIST_POOL_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/rmap/pte_list_desc.h"

namespace mmu {

// Thread-safe.
class PteListPool {
 public:
  // A separate pool, for tests of limits. `max_descs` 0 means no limit.
  explicit PteListPool(uint64_t max_descs = 0);
  // REQUIRES: all descriptors were returned.
  ~PteListPool();
  PteListPool(const PteListPool&) = delete;
  PteListPool& operator=(const PteListPool&) = delete;

  // The pool that all VMs of the process share. Never destroyed.
  static PteListPool& Process();

  // Takes up to `count` descriptors and chains them through next; fewer or none
  // (null) if the limit or memory is exhausted. Contents are undefined.
  // May sleep: never call it under mmu_lock (LCK-01).
  struct Chain {
    PteListDesc* head = nullptr;
    int count = 0;
  };
  Chain Take(int count);

  // Returns a chain (may be null), all of one pool, to that pool. Takes no lock
  // and does not wait: may be called under mmu_lock and with the lock of an
  // rmap.
  static void Return(PteListDesc* head);

  // Limits the descriptors that may be out at once from now on.
  void SetMaxDescs(uint64_t max_descs);

  struct Stats {
    uint64_t descs_out = 0;       // in caches and in lists
    uint64_t descs_out_peak = 0;  // the maximum of descs_out after any Take
    uint64_t bytes = 0;           // taken from the kernel; never returned
  };
  Stats Snapshot() const;

 private:
  struct Block;
  bool Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  PteListDesc* free_ ABSL_GUARDED_BY(mu_) = nullptr;
  // A list within the blocks themselves, so a further block needs no other
  // memory.
  Block* blocks_ ABSL_GUARDED_BY(mu_) = nullptr;
  uint64_t block_count_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t out_peak_ ABSL_GUARDED_BY(mu_) = 0;
  // A stack of returned descriptors that are not in free_ yet. See Return.
  std::atomic<PteListDesc*> returned_{nullptr};
  std::atomic<uint64_t> out_{0};  // relaxed, a count
  std::atomic<uint64_t> max_descs_;
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_PTE_LIST_POOL_H_
