// The number of page tables that a process may have out of its pools at once.

#ifndef MMU_CORE_PAGING_TABLE_BUDGET_H_
#define MMU_CORE_PAGING_TABLE_BUDGET_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// Shared by pools whose tables may differ in size: all numbers are in units of
// 4 KiB, so a table of 64 KiB is 16 units. Thread-safe.
class TableBudget {
 public:
  // `max` 0: no limit.
  explicit TableBudget(uint64_t max = 0) : max_(max) {}
  TableBudget(const TableBudget&) = delete;
  TableBudget& operator=(const TableBudget&) = delete;

  // The budget of the process's own pools. Never destroyed.
  static TableBudget& Process() {
    static auto* const budget = new TableBudget();
    return *budget;
  }

  // Limits the units that may be out at once from now on; 0: no limit.
  void SetMax(uint64_t max) { max_.store(max, std::memory_order_relaxed); }
  // Whether there is no room for another table of `units`.
  bool is_at_limit(uint64_t units) const { return Room(units) < units; }

  // The part of a request that was granted.
  struct Grant {
    uint64_t tables = 0;
    // The units that were in their grace period at that moment.
    uint64_t in_grace_period = 0;
  };
  // Counts up to `tables` tables of `units` each as out.
  Grant Take(uint64_t tables, uint64_t units) {
    MutexLock lock(mu_);
    const uint64_t granted = std::min(tables, Room(tables * units) / units);
    out_.fetch_add(granted * units, std::memory_order_relaxed);
    // Read under the mutex that EndGracePeriod also takes. So a table in its
    // grace period that left no room above is counted here, too.
    return {granted, in_grace_period_.load(std::memory_order_relaxed)};
  }
  void Return(uint64_t units) {
    out_.fetch_sub(units, std::memory_order_relaxed);
  }
  // What is in its grace period is a part of what is out. BeginGracePeriod
  // takes no lock.
  void BeginGracePeriod(uint64_t units) {
    in_grace_period_.fetch_add(units, std::memory_order_relaxed);
  }
  void EndGracePeriod(uint64_t units) {
    MutexLock lock(mu_);
    in_grace_period_.fetch_sub(units, std::memory_order_relaxed);
    Return(units);
  }

  // A copy, taken without a lock.
  struct Use {
    uint64_t in_use = 0;
    uint64_t in_grace_period = 0;
    uint64_t max_tables = 0;  // 0: no limit
  };
  Use Snapshot() const {
    Use use;
    use.max_tables = max_.load(std::memory_order_relaxed);
    const uint64_t all = out_.load(std::memory_order_relaxed);
    // The two counts are read separately and may differ by some tables.
    use.in_grace_period =
        std::min(all, in_grace_period_.load(std::memory_order_relaxed));
    use.in_use = all - use.in_grace_period;
    return use;
  }

 private:
  // The units, `wanted` at most, for which there is room.
  uint64_t Room(uint64_t wanted) const {
    const uint64_t max = max_.load(std::memory_order_relaxed);
    if (max == 0) return wanted;
    const uint64_t out = out_.load(std::memory_order_relaxed);
    return out >= max ? 0 : std::min(wanted, max - out);
  }

  Mutex mu_;  // a leaf; held by Take and EndGracePeriod
  // Relaxed: the counts order nothing.
  std::atomic<uint64_t> max_;
  std::atomic<uint64_t> out_{0};
  std::atomic<uint64_t> in_grace_period_{0};
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_BUDGET_H_
