// The table of operations in mmu_core/LOCKING.md, as a test: what each holds
// where it works, and whether it lets others in when somebody waits.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/mutex.h"
#include "mmu_core/tdp/tdp_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/hardware_walk.h"

namespace mmu::testing {
namespace {

using ::testing::Values;

constexpr uint64_t kPages = 4 * k2MPages;

struct Row {
  const char* operation;
  // Where it works: at least one of this hook must be passed.
  HookPoint work;
  const char* held;   // there: mmu_lock and RCU
  const char* modes;  // in which it takes mmu_lock, in order
  bool yields;
  bool slots_lock;
  // Brings a VM of 8 MiB, touched by huge pages, to where the operation has
  // something to do, and does it.
  std::function<void(Vm&)> prepare;
  std::function<void(Vm&)> run;
};

std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.operation;
}

void SplitAll(Vm& vm) { Split(vm, GfnRange::Of(Gfn(0), kPages)); }

DirtyLogConfig LogConfig(InitiallySet initially_set, SplitPolicy split) {
  DirtyLogConfig config;
  config.initially_set = initially_set;
  config.split = split;
  return config;
}

void StartLog(Vm& vm, InitiallySet initially_set, SplitPolicy split) {
  EXPECT_TRUE(vm.StartDirtyLog(LogConfig(initially_set, split), nullptr).ok());
}

void ClearAll(Vm& vm) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, 0, &epoch);
  EXPECT_TRUE(
      vm.ClearDirtyLog(0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr)
          .ok());
}

bool IsFree(Mutex& mutex) {
  bool free = false;
  std::thread([&] {
    if (!mutex.TryLock()) return;
    free = true;
    mutex.Unlock();
  }).join();
  return free;
}

// Whether the trace yields in the mode in which mmu_lock is held at `work`.
bool YieldsAsAt(const LockTrace& trace, HookPoint work) {
  std::optional<LockTrace::Held> mode;
  bool yields = false;
  for (const LockTrace::Event& event : trace.events()) {
    if (event.point == work && !mode.has_value()) mode = event.mmu_lock;
    yields |= event.point == HookPoint::kYield && event.mmu_lock == mode;
  }
  return yields;
}

class LockingTableTest : public ::testing::TestWithParam<Row> {};

// Runs the operation while a thread queues for mmu_lock in write mode as soon
// as it works under that lock.
// Covers: LCK-02, TDP-23, TDP-24
TEST_P(LockingTableTest, HoldsWhatTheTableSays) {
  const Row& row = GetParam();
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)}, 2);
  for (uint64_t gfn = 0; gfn < kPages; gfn += k2MPages) {
    Write(*vm, gfn * kPageSize);
  }
  row.prepare(*vm);
  VmState& state = vm->state();
  std::unique_ptr<std::thread> waiter;
  std::optional<bool> slots_lock;
  const auto at_hook = [&](const LockTrace::Event& event) {
    if (event.point != row.work) return;
    if (!slots_lock.has_value()) {
      slots_lock = !IsFree(state.slots.slots_lock);
    }
    if (waiter != nullptr || event.mmu_lock == LockTrace::Held::kNothing) {
      return;
    }
    waiter = std::make_unique<std::thread>(
        [&] { MmuWriteLocked lock(state.mmu_lock, LockOp::kNotifier); });
    while (!state.mmu_lock.IsContended()) std::this_thread::yield();
  };
  {
    LockTrace trace(at_hook);
    row.run(*vm);
    if (waiter != nullptr) waiter->join();
    EXPECT_GE(trace.CountOf(row.work), 1);
    EXPECT_EQ(trace.HeldAt(row.work), row.held);
    EXPECT_EQ(trace.Modes(), row.modes);
    EXPECT_EQ(YieldsAsAt(trace, row.work), row.yields);
    EXPECT_EQ(slots_lock, row.slots_lock);
    // A yield takes the mode that it dropped.
    for (size_t i = 0; i + 2 < trace.events().size(); ++i) {
      if (trace.events()[i].point != HookPoint::kYield) continue;
      EXPECT_EQ(trace.events()[i + 1].point, HookPoint::kUnlock);
      EXPECT_FALSE(trace.events()[i + 1].rcu);
      EXPECT_EQ(trace.events()[i + 2].mmu_lock, trace.events()[i].mmu_lock);
    }
    // Nothing is allocated under the lock.
    for (const LockTrace::Event& event : trace.events()) {
      if (event.point == HookPoint::kTopUp) {
        EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing);
      }
    }
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

void Nothing(Vm&) {}

INSTANTIATE_TEST_SUITE_P(
    TdpRows, LockingTableTest,
    Values(
        Row{"SlowPageFault", HookPoint::kSnapshotToExchange, "read/rcu", "read",
            false, false,
            [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(0), k2MPages)); },
            [](Vm& vm) { Write(vm, 0); }},
        Row{"FastPageFault", HookPoint::kFastFaultToExchange, "none/rcu",
            "none", false, false,
            [](Vm& vm) {
              SplitAll(vm);
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
            },
            [](Vm& vm) { Write(vm, 0); }},
        Row{"TableWalk", HookPoint::kWalkToTable, "none/rcu", "none", false,
            false, [](Vm& vm) { vm.state().vcpus[0]->tlb().FlushAll(); },
            [](Vm& vm) { Read(vm, 0); }},
        Row{"LoadARoot", HookPoint::kRootFoundToGet, "read/rcu", "read", false,
            false, Nothing, [](Vm& vm) { Read(vm, 0, 1); }},
        Row{"InvalidateAllRoots", HookPoint::kInvalidateToRequest, "write/-",
            "write read", false, true, SplitAll,
            [](Vm& vm) {
              MemslotConfig gone;
              gone.slot = 0;
              EXPECT_TRUE(vm.SetMemslot(gone).ok());
            }},
        Row{"ZapInvalidatedRoots", HookPoint::kSnapshotToExchange, "read/rcu",
            "write read", true, true, SplitAll,
            [](Vm& vm) {
              MemslotConfig gone;
              gone.slot = 0;
              EXPECT_TRUE(vm.SetMemslot(gone).ok());
            }},
        Row{"ZapLeafsOfARange", HookPoint::kSnapshotToStore, "write/rcu",
            "write", true, false, SplitAll,
            [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(0), kPages)); }},
        Row{"EnableALogSplit", HookPoint::kTableFilledToLink, "read/rcu",
            "read", true, true, Nothing,
            [](Vm& vm) {
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kEager);
            }},
        Row{"EnableALogWriteProtect", HookPoint::kEntryToAnd, "read/rcu",
            "read", true, true, SplitAll,
            [](Vm& vm) {
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
            }},
        Row{"ClearDirtyOfASlot", HookPoint::kEntryToAnd, "read/rcu", "read",
            true, false,
            [](Vm& vm) {
              SplitAll(vm);
              Touch(vm, GfnRange::Of(Gfn(0), kPages));
            },
            [](Vm& vm) {
              MmuReadLocked lock(vm.state().mmu_lock, LockOp::kEnable);
              vm.state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), kPages),
                                        nullptr);
            }},
        Row{"SplitOnClear", HookPoint::kTableFilledToLink, "write/rcu", "write",
            true, true,
            [](Vm& vm) {
              StartLog(vm, InitiallySet::kYes, SplitPolicy::kOnClear);
            },
            ClearAll},
        Row{"ClearByMask", HookPoint::kEntryToAnd, "write/rcu", "write", true,
            true,
            [](Vm& vm) {
              SplitAll(vm);
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
              Touch(vm, GfnRange::Of(Gfn(0), kPages));
            },
            ClearAll},
        Row{"WriteProtectGfn", HookPoint::kSnapshotToStore, "write/rcu",
            "write", false, false, Nothing,
            [](Vm& vm) {
              MmuWriteLocked lock(vm.state().mmu_lock, LockOp::kClear);
              if (vm.state().tdp.WriteProtectGfn(lock, 0, Gfn(0), Level::k4K)) {
                vm.state().tlb.Flush(FlushScope::kRange,
                                     FlushReason::kWriteProtect, nullptr);
              }
            }},
        Row{"RecoverHugePages", HookPoint::kSnapshotToExchange, "read/rcu",
            "read", true, true, SplitAll,
            [](Vm& vm) { EXPECT_TRUE(vm.RecoverHugePages({}, nullptr).ok()); }},
        Row{"Age", HookPoint::kAgeToExchange, "none/rcu", "none", false, false,
            Nothing,
            [](Vm& vm) {
              EXPECT_TRUE(vm.Age(GfnRange::Of(Gfn(0), kPages),
                                 AgeMode::kTestAndClear, nullptr)
                              .ok());
            }},
        Row{"Seal", HookPoint::kSummaryToTake, "none/-", "none", false, false,
            [](Vm& vm) {
              SplitAll(vm);
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
              Write(vm, 0);
            },
            [](Vm& vm) { EXPECT_TRUE(vm.SealDirtyLog(0, nullptr).ok()); }},
        Row{"Audit", HookPoint::kWriteLocked, "write/-", "write", false, true,
            Nothing, [](Vm& vm) { EXPECT_EQ(AuditFindings(vm), ""); }}),
    [](const auto& row) { return std::string(row.param.operation); });

// Covers: LCK-03, TDP-05
TEST(LockRulesTest, ARootTurnsInvalidUnderTheLockInWriteModeOnly) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Read(*vm, 0);
  const TdpRoot& root = *vm->state().vcpus[0]->root();
  bool was_invalid = root.IsInvalid();
  ASSERT_FALSE(was_invalid);
  std::optional<LockTrace::Held> held;
  LockTrace trace([&](const LockTrace::Event& event) {
    if (root.IsInvalid() == was_invalid) return;
    was_invalid = root.IsInvalid();
    held = event.mmu_lock;
  });
  MutexLock lock(vm->state().slots.slots_lock);
  vm->state().tdp.FastZapAll(nullptr);
  EXPECT_TRUE(was_invalid);
  EXPECT_EQ(held, LockTrace::Held::kWrite);
  // It was still valid when the lock was taken.
  EXPECT_EQ(trace.events().front().point, HookPoint::kWriteLocked);
}

// Covers: LCK-05, LCK-01, TDP-62
TEST(LockRulesTest, TablesOfOperationsAreAllocatedUnderSlotsLockAlone) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  VmState& state = vm->state();
  for (uint64_t gfn = 0; gfn < kPages; gfn += k2MPages) {
    Write(*vm, gfn * kPageSize);
  }
  int top_ups = 0;
  const auto at_hook = [&](const LockTrace::Event& event) {
    if (event.point != HookPoint::kTopUp) return;
    ++top_ups;
    EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing);
    EXPECT_FALSE(event.rcu);
    EXPECT_FALSE(IsFree(state.slots.slots_lock));
  };
  LockTrace trace(at_hook);
  StartLog(*vm, InitiallySet::kNo, SplitPolicy::kEager);
  EXPECT_GE(top_ups, 1);
}

// Covers: LCK-05
TEST(LockRulesTest, AFaultDoesNotTouchTheTablesOfOperations) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  VmState& state = vm->state();
  Write(*vm, 0);
  StartLog(*vm, InitiallySet::kNo, SplitPolicy::kNone);
  int tables = 0;
  {
    MutexLock lock(state.slots.slots_lock);
    tables = state.operation_tables.count();
  }
  state.vcpus[0]->table_cache().Clear();
  Write(*vm, 5 * kPageSize);  // splits the huge page
  EXPECT_EQ(vm->Stats().pages_2m, 0u);
  MutexLock lock(state.slots.slots_lock);
  EXPECT_EQ(state.operation_tables.count(), tables);
}

}  // namespace
}  // namespace mmu::testing
