// Memory for page tables of one size.
//
// The pool takes 2 MiB blocks from the kernel, faults each in at once, and
// hands them out as tables. A block begins with the descriptors of its tables,
// so that
//
//   block = address of a table rounded down to 2 MiB
//   descriptor = block's descriptors[(table - first table) / size of a table]
//
// A fresh page from the kernel costs several times as much as filling it; a
// warm pool keeps that cost out of the fault path. Tables return to the pool
// after an RCU grace period (TDP-30), never to the kernel. So a table is
//
//   free              in the pool
//   in use            in a cache, or linked
//   in grace period   unlinked, but another thread may still walk it
//
// The latter two are out. The limit applies to both, since both use memory. The
// pools of a process share one limit (paging/table_budget.h).

#ifndef MMU_CORE_PAGING_BASIC_TABLE_POOL_H_
#define MMU_CORE_PAGING_BASIC_TABLE_POOL_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/table_budget.h"

namespace mmu {

// `Page` is the descriptor of a table. It has a type Table and the members
//   Table* table           set by the pool, constant
//   BasicTablePool* pool   the pool to return to, constant
//   Page* next_free        used by the pool and the caches only
//   RcuHook rcu            in use once the page is unlinked
// Thread-safe.
template <typename Page>
class BasicTablePool {
 public:
  // A separate pool with a budget of its own, for tests of limits. `max_tables`
  // 0 means no limit.
  explicit BasicTablePool(uint64_t max_tables = 0)
      : own_budget_(max_tables), budget_(own_budget_) {}
  // A pool that shares `budget`, which outlives it.
  explicit BasicTablePool(TableBudget& budget) : budget_(budget) {}
  ~BasicTablePool();
  BasicTablePool(const BasicTablePool&) = delete;
  BasicTablePool& operator=(const BasicTablePool&) = delete;

  // The pool that all VMs of the process share. Never destroyed.
  static BasicTablePool& Process();

  using Use = TableBudget::Use;

  // Takes up to `count` tables and chains them through next_free; fewer or
  // none (null) if the limit or memory is exhausted. Contents are undefined.
  // May sleep: never call it under mmu_lock (LCK-01).
  struct Chain {
    Page* head = nullptr;
    int count = 0;
    // The tables that were in their grace period at that moment and may make
    // room when it ends.
    uint64_t in_grace_period = 0;
  };
  Chain Take(int count);
  // Returns a chain of tables that no thread can walk.
  void Return(Page* head);

  // The two steps that return a table, which was unlinked, to its pool after a
  // grace period. They take no lock and do not wait, so they may be called
  // under mmu_lock. BeginGracePeriod counts the table as in its grace period as
  // soon as it is unlinked, although its entries may still have to be torn
  // down. HandToRcu must follow within the same RCU read section: a thread that
  // needs the table waits for the end of that section (sync/refill.h).
  // REQUIRES: an RCU read section (checked).
  static void BeginGracePeriod(const Page& page);
  static void HandToRcu(Page& page);
  // The function that HandToRcu defers, for callers that free more than the
  // table.
  static void EndGracePeriod(Page& page);

  // Limits the tables that may be out at once from now on; 0: no limit. The
  // limit is that of the budget, which counts tables of 4 KiB.
  void SetMaxTables(uint64_t max_tables) { budget_.SetMax(max_tables); }
  // Of this pool.
  uint64_t tables_out() const { return out_.load(std::memory_order_relaxed); }
  bool is_at_limit() const {
    return budget_.is_at_limit(sizeof(typename Page::Table) / kPageSize);
  }
  TableBudget::Use Snapshot() const { return budget_.Snapshot(); }

  // The descriptor of a table of any pool.
  static Page* DescriptorOf(const typename Page::Table* table);

 private:
  struct Block;
  bool Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Mutex mu_;
  Page* free_ ABSL_GUARDED_BY(mu_) = nullptr;
  // A list within the blocks themselves, so a further block needs no other
  // memory.
  Block* blocks_ ABSL_GUARDED_BY(mu_) = nullptr;
  TableBudget own_budget_;
  TableBudget& budget_;  // own_budget_, or shared
  // Relaxed; a part of the budget's.
  std::atomic<uint64_t> out_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_BASIC_TABLE_POOL_H_
