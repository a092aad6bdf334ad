// Operations on a VM below its public functions, for tests of the TDP MMU.

#ifndef MMU_CORE_TESTING_TDP_TEST_UTIL_H_
#define MMU_CORE_TESTING_TDP_TEST_UTIL_H_

#include <atomic>
#include <cstdint>
#include <thread>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/tdp_cursor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;
inline constexpr uint64_t k2MPages = PagesPer(Level::k2M);
inline constexpr uint64_t k1GPages = PagesPer(Level::k1G);

inline uint64_t FlushesOf(const Vm& vm) {
  return vm.Stats().flush.remote_tlb_flush_requests;
}

// The number of yields of mmu_lock by `op` in `mode` so far.
inline uint64_t YieldsOf(const Vm& vm, LockMode mode, LockOp op) {
  return vm.Stats().lock.at(mode, op).yields;
}

// The slot that holds `gfn`. Valid until the slots are changed.
inline const Memslot& SlotOf(Vm& vm, Gfn gfn, int as_id = 0) {
  RcuReadGuard rcu;
  const Memslot* slot = vm.state().slots.Active(as_id).FindByGfn(gfn);
  MMU_CHECK(slot != nullptr);
  return *slot;
}

// The entry of `level` for `gfn` in `root`; the tables above it must exist.
inline SpteSlot& EntryIn(const TdpRoot& root, Gfn gfn, Level level) {
  RcuReadGuard rcu;
  PageTable* table = root.table();
  for (Level l = root.level(); l > level; l = ChildOf(l)) {
    const Spte spte = table->entries[IndexOf(gfn, l)].Load();
    MMU_CHECK(spte.IsPresentTable(l));
    table = TableOf(spte);
  }
  return table->entries[IndexOf(gfn, level)];
}
inline SpteSlot& EntryOf(Vm& vm, Gfn gfn, Level level, int as_id = 0) {
  RcuReadGuard rcu;
  return EntryIn(*vm.state().tdp.roots().FirstRcu(RootFilter::kValid, as_id),
                 gfn, level);
}

// A fault, resolved as by the fault handler.
inline PageFault FaultOn(Vm& vm, Gfn gfn, AccessKind kind, int as_id = 0) {
  PageFault fault;
  fault.gfn = gfn;
  fault.kind = kind;
  fault.present = true;
  fault.slot = &SlotOf(vm, gfn, as_id);
  fault.pfn = fault.slot->PfnOf(gfn);
  fault.map_writable =
      fault.slot->readonly() ? HostWritable::kNo : HostWritable::kYes;
  return fault;
}

// Maps the page of `fault` into `root` under mmu_lock.
inline FaultResult MapInto(Vm& vm, const TdpRoot& root, PageFault& fault,
                           TableCache& cache) {
  MMU_CHECK(cache.TopUp(TdpMmu::kTablesPerFault).ok());
  MmuReadLocked lock(vm.state().mmu_lock, LockOp::kFault);
  return vm.state().tdp.Map(lock, root, fault, cache);
}

inline bool WriteProtect(Vm& vm, GfnRange range, Level min_level = Level::k4K,
                         MmuCost* cost = nullptr) {
  MmuReadLocked lock(vm.state().mmu_lock, LockOp::kEnable, cost);
  return vm.state().tdp.WriteProtect(lock, 0, range, min_level, cost);
}

inline bool ZapLeafs(Vm& vm, GfnRange range,
                     RootFilter filter = RootFilter::kValid,
                     MmuCost* cost = nullptr) {
  MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kZap, cost);
  return vm.state().tdp.ZapLeafs(lock, 0, range, filter, FlushReason::kZap,
                                 cost);
}

inline SplitOutcome Split(Vm& vm, GfnRange range, TableCache& cache,
                          Level target = Level::k4K, int64_t deadline_nanos = 0,
                          MmuCost* cost = nullptr) {
  MmuReadLocked lock(vm.state().mmu_lock, LockOp::kSplit, cost);
  return vm.state().tdp.Split(lock, 0, range, target, SplitTrigger::kRequest,
                              cache, deadline_nanos, cost);
}
inline SplitOutcome Split(Vm& vm, GfnRange range, Level target = Level::k4K) {
  TableCache cache(vm.state().pool);
  return Split(vm, range, cache, target);
}

inline RecoverOutcome Recover(Vm& vm, GfnRange range, MmuCost* cost = nullptr) {
  MmuReadLocked lock(vm.state().mmu_lock, LockOp::kRecover, cost);
  return vm.state().tdp.Recover(lock, SlotOf(vm, range.start), range, cost);
}

// A point at which two threads wait for each other, to continue at the same
// moment.
class MeetingOfTwo {
 public:
  // Returns when both threads have called it equally often. It spins, because a
  // woken thread would continue too late. It yields in the end, because the
  // other thread may need this processor.
  void Meet() {
    const uint64_t both = (arrived_.fetch_add(1) | 1) + 1;
    for (int spins = 0; arrived_.load() < both; ++spins) {
      if (spins > 2000) std::this_thread::yield();
    }
  }

 private:
  std::atomic<uint64_t> arrived_{0};
};

// Takes a lock in write mode again and again, so that other holders nearly
// always find a waiting thread.
class Contender {
 public:
  explicit Contender(MmuLock& lock)
      : thread_([this, &lock] {
          while (!stop_.load()) {
            MmuWriteLocked held(lock, LockOp::kNotifier);
            ++turns_;
          }
        }) {}
  ~Contender() {
    stop_.store(true);
    thread_.join();
  }
  Contender(const Contender&) = delete;
  Contender& operator=(const Contender&) = delete;

  uint64_t turns() const { return turns_.load(); }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> turns_{0};
  std::thread thread_;
};

// One thread that waits for mmu_lock, which the caller holds as `held`.
class Waiter {
 public:
  template <typename Lock>
  Waiter(MmuLock& lock, const Lock& held)
      : thread_([&lock] { MmuWriteLocked wanted(lock, LockOp::kNotifier); }) {
    while (!held.NeedYield()) std::this_thread::yield();
  }
  // REQUIRES: the caller has released the lock.
  ~Waiter() { thread_.join(); }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

 private:
  std::thread thread_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_TDP_TEST_UTIL_H_
