// Memory for page tables.
//
// The pool takes 2 MiB blocks from the kernel, faults each in at once, and
// hands them out as 4 KiB tables. A block begins with the descriptors of its
// tables, so that
//
//   block = address of a table rounded down to 2 MiB
//   descriptor = block's descriptors[(table - first table) / 4 KiB]
//
// A fresh page from the kernel costs several times as much as filling it; a
// warm pool keeps that cost out of the fault path. Tables return to the pool
// after an RCU grace period (TDP-30), never to the kernel. So a table is
//
//   free              in the pool
//   in use            in a cache, or linked
//   in grace period   unlinked, but another thread may still walk it
//
// The latter two are out. The limit applies to both, since both use memory.

#ifndef MMU_CORE_PAGING_TABLE_POOL_H_
#define MMU_CORE_PAGING_TABLE_POOL_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/shadow_page.h"

namespace mmu {

// Thread-safe.
class TablePool {
 public:
  // A separate pool, for tests of limits. `max_tables` 0 means no limit.
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
    // The pool's tables that were in their grace period at that moment.
    uint64_t in_grace_period = 0;
  };
  Chain Take(int count);
  // Returns a chain of tables that no thread can walk.
  void Return(ShadowPage* head);

  // The two steps that return a table, which was unlinked, to its pool after a
  // grace period. They take no lock and do not wait, so they may be called
  // under mmu_lock. BeginGracePeriod counts the table as in its grace period as
  // soon as it is unlinked, although its entries may still have to be torn
  // down. HandToRcu must follow within the same RCU read section: a thread that
  // needs the table waits for the end of that section (sync/refill.h).
  // REQUIRES: an RCU read section (checked).
  static void BeginGracePeriod(const ShadowPage& page);
  static void HandToRcu(ShadowPage& page);
  // The function that HandToRcu defers, for callers that free more than the
  // table.
  static void EndGracePeriod(ShadowPage& page);

  // Limits the tables that may be out at once from now on; 0: no limit.
  void SetMaxTables(uint64_t max_tables);
  uint64_t tables_out() const { return out_.load(std::memory_order_relaxed); }

  // A copy, taken without a lock.
  struct Use {
    uint64_t in_use = 0;
    uint64_t in_grace_period = 0;
    uint64_t max_tables = 0;  // 0: no limit
  };
  Use Snapshot() const;

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
  // A list within the blocks themselves, so a further block needs no other
  // memory.
  Block* blocks_ ABSL_GUARDED_BY(mu_) = nullptr;
  // Relaxed counts. in_grace_period_ is a part of out_.
  std::atomic<uint64_t> out_{0};
  std::atomic<uint64_t> in_grace_period_{0};
  std::atomic<uint64_t> max_tables_;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_POOL_H_
