// Memory for page tables.
//
// The pool takes 2 MiB blocks from the kernel, faults each in at once, and
// hands them out as 4 KiB tables. A block begins with the descriptors of its
// tables, so that
//
//   block = address of a table rounded down to 2 MiB
//   descriptor = block's descriptors[(table - first table) / 4 KiB]
//
// A fresh page from the kernel costs several times what filling it costs; a
// warm pool is what keeps that out of the fault path. Tables return to the
// pool after an RCU grace period (TDP-30), never to the kernel.

#ifndef MMU_CORE_PAGING_TABLE_POOL_H_
#define MMU_CORE_PAGING_TABLE_POOL_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/sync/mutex.h"

namespace mmu {

// Thread-safe.
class TablePool {
 public:
  // A pool of its own, for tests of limits. `max_tables` 0 means no limit.
  explicit TablePool(uint64_t max_tables = 0);
  ~TablePool();
  TablePool(const TablePool&) = delete;
  TablePool& operator=(const TablePool&) = delete;

  // The pool that all VMs of the process share. Never destroyed.
  static TablePool& Process();

  // Takes up to `count` tables and chains them through next_free; fewer or
  // none (null) if the limit or memory is exhausted. Contents are undefined.
  // May sleep: never call it under mmu_lock (LCK-01).
  struct Chain {
    ShadowPage* head = nullptr;
    int count = 0;
  };
  Chain Take(int count);
  // Gives a chain back. Cheap; may be called from an RCU callback.
  void Return(ShadowPage* head);

  // No more than this many tables may be out at once from now on.
  void SetMaxTables(uint64_t max_tables);
  uint64_t tables_out() const { return out_.load(std::memory_order_relaxed); }

  bool is_at_limit() const {
    const uint64_t max = max_tables_.load(std::memory_order_relaxed);
    return max != 0 && tables_out() >= max;
  }

  // The descriptor of a table of any pool.
  static ShadowPage* DescriptorOf(const PageTable* table);

 private:
  struct Block;
  bool Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  ShadowPage* free_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::vector<Block*> blocks_ ABSL_GUARDED_BY(mu_);
  std::atomic<uint64_t> out_{0};
  std::atomic<uint64_t> max_tables_;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_POOL_H_
