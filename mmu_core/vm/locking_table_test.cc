// The table of operations in mmu_core/LOCKING.md, as a test: the locks that
// each operation holds at its work, and whether it yields to a waiting thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/mutex_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/hardware_walk.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::Values;

constexpr uint64_t kPages = 4 * k2MPages;

struct Row {
  const char* operation;
  // The hook at the operation's work; the operation must pass it at least once.
  HookPoint work;
  const char* held;   // at that hook: mmu_lock and RCU
  const char* modes;  // the modes in which it takes mmu_lock, in order
  bool yields;
  bool slots_lock;
  // `prepare` gives the operation something to do, in a VM of 8 MiB that is
  // mapped by huge pages. `run` runs the operation.
  std::function<void(Vm&)> prepare;
  std::function<void(Vm&)> run;
  // Changes the VM's configuration for this row.
  std::function<void(VmConfig&)> configure = [](VmConfig&) {};
};

std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.operation;
}

// Zaps all mappings, because a new rule for execution applies, and executes
// again.
void ExecuteAll(Vm& vm) {
  {
    MutexLock lock(vm.state().slots.slots_lock);
    vm.state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  for (uint64_t gfn = 0; gfn < kPages; gfn += k2MPages) {
    Exec(vm, ToGpa(Gfn(gfn)).value());
  }
}

void SplitAll(Vm& vm) { Split(vm, GfnRange::Of(Gfn(0), kPages)); }

DirtyLogConfig LogConfig(InitiallySet initially_set, SplitPolicy split) {
  DirtyLogConfig config;
  config.initially_set = initially_set;
  config.split = split;
  return config;
}

void StartLog(Vm& vm, InitiallySet initially_set, SplitPolicy split) {
  EXPECT_TRUE(
      testing::StartLog(vm, LogConfig(initially_set, split), nullptr).ok());
}

void ClearAll(Vm& vm) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, 0, &epoch);
  EXPECT_TRUE(
      ClearAndDeliver(vm, 0, epoch, 0, kPages, MaskOf(kPages, pages), nullptr)
          .ok());
}

// Returns whether the trace has a yield in the mode in which mmu_lock is held
// at `work`.
bool YieldsAsAt(const LockTrace& trace, HookPoint work) {
  std::optional<LockTrace::Held> mode;
  bool yields = false;
  for (const LockTrace::Event& event : trace.events()) {
    if (event.point == work && !mode.has_value()) mode = event.mmu_lock;
    yields |= event.point == HookPoint::kYield && event.mmu_lock == mode;
  }
  return yields;
}

std::unique_ptr<Vm> MakeVmFor(const Row& row) {
  VmConfig config;
  config.vcpu_count = 2;
  config.memslots = {Slot(0, 0, kPages * kPageSize, Level::k2M)};
  row.configure(config);
  return MakeVmFrom(config);
}

class LockingTableTest : public ::testing::TestWithParam<Row> {
 private:
  // With this clock, walks yield only for a waiting thread, not because time
  // passes.
  const StillHoldClock clock_;
};

// Runs the operation. As soon as it works under mmu_lock, another thread queues
// for the lock in write mode.
// Covers: LCK-02, TDP-23, TDP-24
TEST_P(LockingTableTest, HoldsWhatTheTableSays) {
  const Row& row = GetParam();
  auto vm = MakeVmFor(row);
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
      slots_lock = IsHeld(state.slots.slots_lock);
    }
    if (waiter != nullptr || event.mmu_lock == LockTrace::Held::kNothing) {
      return;
    }
    waiter = std::make_unique<std::thread>(
        [&] { MmuWriteLocked lock(state.mmu_lock, LockOp::kNotifier); });
    Await("a thread waits for mmu_lock",
          [&] { return state.mmu_lock.IsContended(); });
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
    // After a yield, the operation takes the lock in the mode that it dropped.
    for (size_t i = 0; i + 2 < trace.events().size(); ++i) {
      if (trace.events()[i].point != HookPoint::kYield) continue;
      EXPECT_EQ(trace.events()[i + 1].point, HookPoint::kUnlock);
      EXPECT_FALSE(trace.events()[i + 1].rcu);
      size_t next = i + 2;
      while (next < trace.events().size() &&
             trace.events()[next].point != HookPoint::kReadLocked &&
             trace.events()[next].point != HookPoint::kWriteLocked) {
        ++next;
      }
      ASSERT_LT(next, trace.events().size());
      EXPECT_EQ(trace.events()[next].mmu_lock, trace.events()[i].mmu_lock);
    }
    // Caches are filled without the lock.
    for (const LockTrace::Event& event : trace.events()) {
      if (event.point == HookPoint::kTopUp) {
        EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing);
        EXPECT_FALSE(event.rcu) << "it may wait for a grace period";
      }
    }
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

void Nothing(Vm&) {}

void DeleteSlot0(Vm& vm) {
  MemslotConfig gone;
  gone.slot = 0;
  EXPECT_TRUE(vm.SetMemslot(gone).ok());
}

void WithRings(VmConfig& config) { config.dirty_ring_entries = 4096; }
void WithCompanions(VmConfig& config) {
  config.dirty_ring_entries = 4096;
  config.companion_bitmap = VmConfig::CompanionBitmap::kYes;
}
void WithoutAd(VmConfig& config) { config.ad_bits = VmConfig::AdBits::kOff; }

// Makes all pages of a logging VM dirty.
void DirtyAll(Vm& vm) {
  SplitAll(vm);
  StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
  Touch(vm, GfnRange::Of(Gfn(0), kPages));
}

void ResetRings(Vm& vm) {
  const auto count = ResetDirtyRings(
      vm.state(), [] { return false; }, nullptr);
  EXPECT_TRUE(count.ok());
}

// The host memory of slot 0.
HvaRange AllHvas(Vm& vm) { return HostPagesOf(vm, 0, 0, kPages); }

void HostUnmaps(Vm& vm, MayYield may_yield) {
  InvalidateRangeStart(vm.state(), AllHvas(vm), may_yield);
}

void PreFaultAll(Vm& vm) {
  PreFaultRange range;
  range.size_bytes = kPages * kPageSize;
  while (range.size_bytes > 0) {
    ASSERT_TRUE(PreFaultMemory(vm.state(), *vm.state().vcpus[0], range, [] {
                  return false;
                }).ok());
  }
}

// In one chunk.
void SplitByJob(Vm& vm) {
  SplitRequest request;
  request.ranges = {GfnRange::Of(Gfn(0), kPages)};
  request.throttle.chunk_bytes = kPages * kPageSize;
  request.throttle.max_lock_hold = absl::Seconds(1);
  const auto job = SplitJob::Create(vm.state(), request);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_TRUE((*job)->Run().ok());
}

constexpr uint64_t kHole = kGiB;  // no slot is there

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
            "write read", false, true, SplitAll, DeleteSlot0},
        Row{"ZapInvalidatedRoots", HookPoint::kSnapshotToExchange, "read/rcu",
            "write read", true, true, SplitAll, DeleteSlot0},
        Row{"DeleteASlotWithItsLeafsOnly", HookPoint::kSnapshotToStore,
            "write/rcu", "write", true, true, SplitAll, DeleteSlot0,
            [](VmConfig& c) { c.slot_zap = VmConfig::SlotZap::kSlot; }},
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
              {
                MmuReadLocked lock(vm.state().mmu_lock, LockOp::kEnable);
                vm.state().tdp.ClearDirty(lock, 0, GfnRange::Of(Gfn(0), kPages),
                                          nullptr);
              }
              vm.state().tlb.Flush(FlushScope::kVm, FlushReason::kClearDirty,
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
        Row{"RecoverHugePages", HookPoint::kChosenToLink, "read/rcu", "read",
            true, true, SplitAll,
            [](Vm& vm) { EXPECT_TRUE(vm.RecoverHugePages({}, nullptr).ok()); }},
        Row{"RecoverNxHugePages", HookPoint::kNxTakenToZap, "read/rcu", "read",
            true, false,
            [](Vm& vm) {
              vm.state().nx_huge_pages.SetMitigated(true);
              ExecuteAll(vm);
            },
            [](Vm& vm) { RecoverNxHugePages(vm.state(), 1); }},
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
            [](Vm& vm) { EXPECT_TRUE(SealLog(vm, 0, nullptr).ok()); }},
        Row{"Audit", HookPoint::kWriteLocked, "write/-", "write", false, true,
            Nothing, [](Vm& vm) { EXPECT_EQ(AuditFindings(vm), ""); }}),
    [](const auto& row) { return std::string(row.param.operation); });

INSTANTIATE_TEST_SUITE_P(
    SlotRows, LockingTableTest,
    Values(Row{"CreateASlot", HookPoint::kGracePeriod, "none/-", "none", false,
               true, Nothing,
               [](Vm& vm) {
                 EXPECT_TRUE(vm.SetMemslot(Slot(1, kHole, kMiB)).ok());
               }},
           Row{"ReflagASlot", HookPoint::kGracePeriod, "none/-", "none", false,
               true, Nothing,
               [](Vm& vm) {
                 StartLog(vm, InitiallySet::kYes, SplitPolicy::kNone);
               }},
           Row{"DeleteASlot", HookPoint::kGracePeriod, "none/-", "write read",
               false, true, SplitAll, DeleteSlot0},
           Row{"MoveASlot", HookPoint::kGracePeriod, "none/-", "write read",
               false, true, SplitAll,
               [](Vm& vm) {
                 EXPECT_TRUE(vm.SetMemslot(Slot(0, kHole, kPages * kPageSize,
                                                Level::k2M))
                                 .ok());
               }},
           Row{"ZapWhenTheGenerationWraps", HookPoint::kInvalidateToRequest,
               "write/-", "write read", false, true,
               [](Vm& vm) {
                 MutexLock lock(vm.state().slots.slots_lock);
                 vm.state().slots.SetGenerationForTest(0,
                                                       kMmioGenerationMask - 1);
               },
               [](Vm& vm) {
                 EXPECT_TRUE(vm.SetMemslot(Slot(1, kHole, kMiB)).ok());
               }}),
    [](const auto& row) { return std::string(row.param.operation); });

INSTANTIATE_TEST_SUITE_P(
    LogRows, LockingTableTest,
    Values(Row{"SplitOneChunkOfAJob", HookPoint::kTableFilledToLink, "read/rcu",
               "read", true, true, Nothing, SplitByJob},
           Row{"GetAndClear", HookPoint::kEntryToAnd, "write/rcu", "write",
               true, true, DirtyAll,
               [](Vm& vm) {
                 EXPECT_TRUE(GetAndClearDirtyLog(vm.state(), 0, nullptr).ok());
               }},
           Row{"HarvestDirtyRings", HookPoint::kRecordToCollected, "none/-",
               "none", false, false, DirtyAll,
               [](Vm& vm) { EXPECT_TRUE(SealLog(vm, 0, nullptr).ok()); },
               WithRings},
           Row{"HarvestCompanionBitmaps", HookPoint::kSummaryToTake, "none/rcu",
               "none", false, false,
               [](Vm& vm) {
                 DirtyAll(vm);
                 ClearAll(vm);
                 EXPECT_TRUE(MarkPageDirty(SlotOf(vm, Gfn(7)), Gfn(7),
                                           /*ring=*/nullptr));
               },
               [](Vm& vm) { HarvestDirtyRings(vm.state()); }, WithCompanions},
           Row{"ResetDirtyRings", HookPoint::kEntryToAnd, "write/rcu", "write",
               true, true,
               [](Vm& vm) {
                 DirtyAll(vm);
                 EXPECT_TRUE(SealLog(vm, 0, nullptr).ok());
               },
               ResetRings, WithRings},
           Row{"FlushAfterAReset", HookPoint::kProtectToFlush, "none/-",
               "write", false, false,
               [](Vm& vm) {
                 DirtyAll(vm);
                 EXPECT_TRUE(SealLog(vm, 0, nullptr).ok());
               },
               ResetRings, WithRings},
           Row{"StopALogWithRings", HookPoint::kRecordToCollected, "none/-",
               "write", false, true, DirtyAll,
               [](Vm& vm) {
                 EXPECT_TRUE(StopLog(vm, RecoverOnStop::kNo,
                                     Undelivered::kDiscard, nullptr)
                                 .ok());
               },
               WithRings}),
    [](const auto& row) { return std::string(row.param.operation); });

// With tables for all blocks, so that a split drops mmu_lock to yield alone.
void OnStage2(VmConfig& config) {
  config.mmu = MmuMode::kStage2;
  config.stage2.eager_split_chunk_bytes = kGiB;
}

INSTANTIATE_TEST_SUITE_P(
    Stage2Rows, LockingTableTest,
    Values(
        Row{"PageFaultOnStage2", HookPoint::kMarkToInstall, "read/rcu", "read",
            false, false,
            [](Vm& vm) {
              MutexLock slots(vm.state().slots.slots_lock);
              vm.state().mmus.FastZapAll(LockOp::kZap, nullptr);
            },
            [](Vm& vm) { Write(vm, 0); }, OnStage2},
        Row{"EnableALogOnStage2", HookPoint::kEntryToAnd, "write/rcu", "write",
            true, true, SplitByJob,
            [](Vm& vm) { StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone); },
            OnStage2},
        Row{"SplitOnStage2", HookPoint::kBreakToTlbi, "write/rcu", "write",
            true, true, Nothing, SplitByJob, OnStage2},
        // A word's block alone; a waiter gets the lock while the stock is
        // filled.
        Row{"SplitOnClearOnStage2", HookPoint::kBreakToTlbi, "write/rcu",
            "write", false, true,
            [](Vm& vm) {
              StartLog(vm, InitiallySet::kYes, SplitPolicy::kOnClear);
            },
            ClearAll, OnStage2},
        Row{"ClearByMaskOnStage2", HookPoint::kSnapshotToExchange, "write/rcu",
            "write", true, true,
            [](Vm& vm) {
              SplitByJob(vm);
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
              Touch(vm, GfnRange::Of(Gfn(0), kPages));
            },
            ClearAll, OnStage2},
        Row{"RecoverOnStage2", HookPoint::kSnapshotToExchange, "write/rcu",
            "write", true, true, SplitByJob,
            [](Vm& vm) { EXPECT_TRUE(vm.RecoverHugePages({}, nullptr).ok()); },
            OnStage2},
        Row{"HostUnmapsOnStage2", HookPoint::kSnapshotToExchange, "write/rcu",
            "write", true, false, SplitByJob,
            [](Vm& vm) {
              HostUnmaps(vm, MayYield::kYes);
              InvalidateRangeEnd(vm.state(), AllHvas(vm));
            },
            OnStage2},
        Row{"AgeOnStage2", HookPoint::kEntryToAnd, "write/rcu", "write", true,
            false, SplitByJob,
            [](Vm& vm) { ClearYoung(vm.state(), AllHvas(vm)); }, OnStage2},
        Row{"AgeOnStage2WhereTheHardwareSetsAf", HookPoint::kEntryToAnd,
            "none/rcu", "none", false, false, SplitByJob,
            [](Vm& vm) { ClearYoung(vm.state(), AllHvas(vm)); },
            [](VmConfig& config) {
              OnStage2(config);
              config.stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
            }}),
    [](const auto& row) { return std::string(row.param.operation); });

INSTANTIATE_TEST_SUITE_P(
    HostRows, LockingTableTest,
    Values(Row{"HostUnmaps", HookPoint::kSnapshotToStore, "write/rcu", "write",
               true, false, SplitAll,
               [](Vm& vm) {
                 HostUnmaps(vm, MayYield::kYes);
                 InvalidateRangeEnd(vm.state(), AllHvas(vm));
               }},
           Row{"HostUnmapsAndMustNotWait", HookPoint::kSnapshotToStore,
               "write/rcu", "write", false, false, SplitAll,
               [](Vm& vm) {
                 HostUnmaps(vm, MayYield::kNo);
                 InvalidateRangeEnd(vm.state(), AllHvas(vm));
               }},
           Row{"HostHasUnmapped", HookPoint::kWriteLocked, "write/-", "write",
               false, false, [](Vm& vm) { HostUnmaps(vm, MayYield::kNo); },
               [](Vm& vm) { InvalidateRangeEnd(vm.state(), AllHvas(vm)); }},
           Row{"HostClearsYoung", HookPoint::kAgeToExchange, "none/rcu", "none",
               false, false, SplitAll,
               [](Vm& vm) {
                 EXPECT_TRUE(ClearYoung(vm.state(), AllHvas(vm)).young);
               }},
           Row{"ZapGuestFrames", HookPoint::kSnapshotToStore, "write/rcu",
               "write", true, false, SplitAll,
               [](Vm& vm) {
                 ZapGfnRange(vm.state(), 0, GfnRange::Of(Gfn(0), kPages));
               }},
           Row{"RestoreAnAccessTrackedPage", HookPoint::kFastFaultToExchange,
               "none/rcu", "none", false, false,
               [](Vm& vm) {
                 EXPECT_TRUE(ClearYoung(vm.state(), AllHvas(vm)).young);
                 vm.state().vcpus[0]->tlb().FlushAll();
               },
               [](Vm& vm) { Read(vm, 0); }, WithoutAd},
           Row{"FaultWithoutASlot", HookPoint::kSnapshotToExchange, "read/rcu",
               "read", false, false, Nothing,
               [](Vm& vm) {
                 EXPECT_EQ(Write(vm, kHole), AccessOutcome::kEmulated);
               }},
           Row{"FaultOnAnMmioSpte", HookPoint::kMmioToCompare, "none/rcu",
               "none", false, false,
               [](Vm& vm) {
                 Read(vm, 0, 1);
                 EXPECT_EQ(Write(vm, kHole, 1, 0), AccessOutcome::kEmulated);
               },
               [](Vm& vm) {
                 EXPECT_EQ(Write(vm, kHole, 1, 1), AccessOutcome::kEmulated);
               }},
           Row{"PreFault", HookPoint::kSnapshotToExchange, "read/rcu", "read",
               false, false,
               [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(0), kPages)); },
               PreFaultAll}),
    [](const auto& row) { return std::string(row.param.operation); });

// A second stage of shadow pages. The pages that the log has split stay small.
void WithShadow(VmConfig& config) { config.mmu = MmuMode::kTdpShadow; }
void LogAllAndStop(Vm& vm) {
  StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
  Touch(vm, GfnRange::Of(Gfn(0), kPages));
  EXPECT_TRUE(
      StopLog(vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
}

INSTANTIATE_TEST_SUITE_P(
    ShadowRows, LockingTableTest,
    Values(
        Row{"EnableALogOfTheShadowMmu", HookPoint::kEntryToAnd, "write/rcu",
            "write", true, true, Nothing,
            [](Vm& vm) { StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone); },
            WithShadow},
        Row{"ClearByMaskInTheShadowMmu", HookPoint::kEntryToAnd, "write/-",
            "write", true, true,
            [](Vm& vm) {
              StartLog(vm, InitiallySet::kNo, SplitPolicy::kNone);
              Touch(vm, GfnRange::Of(Gfn(0), kPages));
            },
            ClearAll, WithShadow},
        Row{"RecoverInTheShadowMmu", HookPoint::kRmapLockToChange, "write/rcu",
            "write", true, true, LogAllAndStop,
            [](Vm& vm) { EXPECT_TRUE(vm.RecoverHugePages({}, nullptr).ok()); },
            WithShadow},
        Row{"RecoverNxHugePagesOfTheShadowMmu", HookPoint::kNxTakenToZap,
            "write/rcu", "write", true, false,
            [](Vm& vm) {
              vm.state().nx_huge_pages.SetMitigated(true);
              ExecuteAll(vm);
            },
            [](Vm& vm) { RecoverNxHugePages(vm.state(), 1); }, WithShadow},
        Row{"HostUnmapsInTheShadowMmu", HookPoint::kRmapLockToChange,
            "write/rcu", "write", true, false, LogAllAndStop,
            [](Vm& vm) {
              HostUnmaps(vm, MayYield::kYes);
              InvalidateRangeEnd(vm.state(), AllHvas(vm));
            },
            WithShadow},
        Row{"DeleteASlotOfTheShadowMmu", HookPoint::kRmapLockToChange,
            "write/rcu", "write", true, true, LogAllAndStop, DeleteSlot0,
            [](VmConfig& config) {
              WithShadow(config);
              config.slot_zap = VmConfig::SlotZap::kSlot;
            }},
        Row{"AgeTheShadowMmu", HookPoint::kAgeToExchange, "none/rcu", "none",
            false, false, Nothing,
            [](Vm& vm) {
              EXPECT_TRUE(vm.Age(GfnRange::Of(Gfn(0), kPages),
                                 AgeMode::kTestAndClear, nullptr)
                              .ok());
            },
            WithShadow}),
    [](const auto& row) { return std::string(row.param.operation); });

TEST(LockRulesTest, PreFaultTakesTheLockForEachPageAnew) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  Read(*vm, 0);
  ZapLeafs(*vm, GfnRange::Of(Gfn(0), kPages));
  LockTrace trace;
  PreFaultAll(*vm);
  EXPECT_EQ(vm->Stats().pages_2m, kPages / k2MPages);
  EXPECT_EQ(trace.CountOf(HookPoint::kReadLocked), kPages / k2MPages);
  EXPECT_EQ(trace.CountOf(HookPoint::kUnlock), kPages / k2MPages);
}

// Covers: AGE-02
TEST(LockRulesTest, HostTestsYoungAndUnmapsOtherMemoryWithoutTheLock) {
  auto vm = MakeVm({Slot(0, 0, kPages * kPageSize, Level::k2M)});
  Read(*vm, 0);
  const HvaRange slot = AllHvas(*vm);
  const HvaRange other = {slot.end + 64 * kMiB, slot.end + 65 * kMiB};
  const uint64_t sequence = vm->state().invalidations.snapshot();
  LockTrace trace;
  EXPECT_TRUE(TestYoung(vm->state(), slot).young);
  InvalidateRangeStart(vm->state(), other, MayYield::kYes);
  InvalidateRangeEnd(vm->state(), other);
  EXPECT_EQ(trace.Modes(), "none");
  EXPECT_EQ(vm->state().invalidations.snapshot(), sequence);
}

// A fast zap makes the root of vCPU 0 invalid between the moment when it takes
// mmu_lock in write mode and the moment when it drops it.
void ExpectInvalidatedUnderTheWriteLock(
    Vm& vm, const std::function<bool()>& is_invalid) {
  ASSERT_FALSE(is_invalid());
  std::optional<LockTrace::Event> before;
  std::optional<LockTrace::Event> seen;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (seen.has_value()) return;
      (is_invalid() ? seen : before) = event;
    });
    MutexLock lock(vm.state().slots.slots_lock);
    vm.state().mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  EXPECT_TRUE(is_invalid());
  ASSERT_TRUE(before.has_value() && seen.has_value());
  EXPECT_EQ(before->mmu_lock, LockTrace::Held::kWrite);
  EXPECT_EQ(seen->mmu_lock, LockTrace::Held::kWrite);
  EXPECT_NE(seen->point, HookPoint::kWriteLocked);
}

// Covers: LCK-03, TDP-05
TEST(LockRulesTest, ARootTurnsInvalidUnderTheLockInWriteModeOnly) {
  auto vm = MakeVm({Slot(0, 0, kMiB)});
  Read(*vm, 0);
  const TdpRoot& root = *vm->state().vcpus[0]->root();
  ExpectInvalidatedUnderTheWriteLock(*vm, [&] { return root.IsInvalid(); });
}

// The page of a root that is in use. The others go, and are invalid on the way.
// Covers: LCK-03, SHD-24
TEST(LockRulesTest, ARootOfShadowPagesTurnsInvalidUnderTheLockInWriteModeOnly) {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, kMiB)};
  auto vm = MakeVmFrom(config);
  Read(*vm, 0);
  const ShadowPageState& root =
      *vm->state().vcpus[0]->shadow()->roots().TopPage(0);
  ExpectInvalidatedUnderTheWriteLock(*vm, [&] { return root.IsInvalid(); });
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
    EXPECT_TRUE(IsHeld(state.slots.slots_lock));
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
