// The rules for TLB flushes. Each test shows the error without the flush: a
// vCPU uses a translation that the tables no longer have.

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
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/mutex_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"

namespace mmu {
namespace {

using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::SealAndList;

constexpr uint64_t kPage = 5;

// The behaviour and the observations of ShouldSkipFlush.
bool g_skip_flushes = false;
// What AlterFlush does; empty: nothing.
std::function<void(TlbFlush&)> g_alter_flush;
testing::LockTrace* g_trace = nullptr;
Vm* g_vm = nullptr;  // null: the last two fields of SeenFlush are not recorded
struct SeenFlush {
  FlushReason reason;
  testing::LockTrace::Held mmu_lock;
  bool rcu;
  bool slots_lock = false;
  Spte leaf = Spte();  // of page 5, at that moment
};
std::vector<SeenFlush> g_flushes;

}  // namespace

bool ShouldSkipFlush(FlushReason reason) {
  if (g_trace != nullptr) {
    SeenFlush flush = {reason, g_trace->mmu_lock(), InRcuReadSection()};
    if (g_vm != nullptr) {
      flush.slots_lock = testing::IsHeld(g_vm->state().slots.slots_lock);
      flush.leaf = testing::SpteOf(g_vm->state(), Gfn(kPage));
    }
    g_flushes.push_back(flush);
  }
  return g_skip_flushes;
}

void AlterFlush(FlushReason, TlbFlush& flush) {
  if (g_alter_flush) g_alter_flush(flush);
}

namespace testing {
namespace {

using ::testing::Each;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Values;

constexpr uint64_t kPageGpa = kPage * kPageSize;
constexpr uint64_t kSlotPages = 2 * k2MPages;

struct Rule {
  const char* name;
  Level host_page_level;
  // How mmu_lock is held when the flush is issued, if at all (TLB-05).
  LockTrace::Held mmu_lock;
  bool rcu;
  // Prepares the VM so that vCPU 0 has page 5 in its TLB.
  std::function<void(Vm&)> prepare;
  // Removes a translation or a right, which needs a flush.
  std::function<void(Vm&)> run;
  // Returns whether vCPU 0 still uses its stale translation.
  std::function<bool(Vm&)> uses_stale;
  // Whether `run` unlinks a table.
  bool unlinks_table = false;
};

std::ostream& operator<<(std::ostream& os, const Rule& rule) {
  return os << rule.name;
}

// Returns whether a write of vCPU 0 is in no log, so that a migration loses it.
bool WriteIsInNoLog(Vm& vm) {
  Write(vm, kPageGpa, 77);
  for (const uint64_t page : SealAndList(vm, 0)) {
    if (page == kPage) return false;
  }
  return true;
}

// Returns whether vCPU 0 can read a page that is not mapped.
bool ReadNeedsNoFault(Vm& vm) {
  const uint64_t taken = vm.VcpuStats()[0].pf_taken;
  Read(vm, kPageGpa);
  return vm.VcpuStats()[0].pf_taken == taken;
}

// Returns whether vCPU 0 uses a translation of the small page that is gone.
bool UsesSmallTranslation(Vm& vm) {
  Read(vm, kPageGpa);
  const TlbEntry* entry = vm.state().vcpus[0]->tlb().Lookup(PageNumber(kPage));
  return entry != nullptr && entry->level == Level::k4K;
}

void StartLog(Vm& vm, InitiallySet initially_set = InitiallySet::kNo) {
  DirtyLogConfig config;
  config.initially_set = initially_set;
  config.split = SplitPolicy::kNone;
  EXPECT_TRUE(testing::StartLog(vm, config, nullptr).ok());
}

// Prepares page 5: written, logged and in the TLB.
void WriteUnderLog(Vm& vm) {
  Touch(vm, GfnRange::Of(Gfn(kPage), 1));
  StartLog(vm);
  Write(vm, kPageGpa, 1);
}

void ClearAll(Vm& vm) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(vm, 0, &epoch);
  EXPECT_TRUE(ClearAndDeliver(vm, 0, epoch, 0, kSlotPages,
                              MaskOf(kSlotPages, pages), nullptr)
                  .ok());
}

void WritePage(Vm& vm) { Write(vm, kPageGpa, 1); }

class FlushRuleTest : public ::testing::TestWithParam<Rule> {
 protected:
  std::unique_ptr<Vm> Run() {
    const Rule& rule = GetParam();
    auto vm =
        MakeVm({Slot(0, 0, kSlotPages * kPageSize, rule.host_page_level)}, 2);
    rule.prepare(*vm);
    EXPECT_NE(vm->state().vcpus[0]->tlb().Lookup(PageNumber(kPage)), nullptr);
    leaf_before_ = SpteOf(vm->state(), Gfn(kPage));
    g_flushes.clear();
    LockTrace trace;
    g_trace = &trace;
    g_vm = vm.get();
    g_alter_flush = alter_;
    rule.run(*vm);
    g_alter_flush = nullptr;
    g_vm = nullptr;
    g_trace = nullptr;
    return vm;
  }
  ~FlushRuleTest() override { g_skip_flushes = false; }

  Spte leaf_before_;  // of page 5, before the operation
  // Applied to the flushes of the operation.
  std::function<void(TlbFlush&)> alter_;
};

// Covers: TLB-05, TLB-06, TLB-12
TEST_P(FlushRuleTest, WithTheFlushNothingStaleIsUsed) {
  auto vm = Run();
  EXPECT_THAT(g_flushes, Not(IsEmpty()));
  EXPECT_FALSE(GetParam().uses_stale(*vm));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: TLB-05, TLB-06
TEST_P(FlushRuleTest, WithoutTheFlushAStaleTranslationIsUsed) {
  g_skip_flushes = true;
  auto vm = Run();
  EXPECT_TRUE(GetParam().uses_stale(*vm));
}

// Covers: TLB-03, TLB-12
TEST_P(FlushRuleTest, AFlushOfOtherGfnsLeavesTheStaleTranslation) {
  alter_ = [](TlbFlush& flush) {
    EXPECT_TRUE(flush.gfns.Contains(Gfn(kPage)));
    flush.gfns = GfnRange{Gfn(RoundDown(Gfn(kPage), Level::k2M) + k2MPages),
                          kAllGfns.end};
  };
  auto vm = Run();
  EXPECT_TRUE(GetParam().uses_stale(*vm));
}

// Covers: TLB-12
TEST_P(FlushRuleTest, AFlushOfAnotherMmuLeavesTheStaleTranslation) {
  alter_ = [](TlbFlush& flush) {
    EXPECT_TRUE(flush.Covers(MmuKind::kTdp));
    flush.mmu = MmuKind::kShadow;
  };
  auto vm = Run();
  EXPECT_TRUE(GetParam().uses_stale(*vm));
}

// Where a table was unlinked, the flush must say so: otherwise a vCPU walks on
// from the table, which may be freed. No other flush says so.
// Covers: TLB-06, TLB-10
TEST_P(FlushRuleTest, AFlushOfLeafsKeepsAnUnlinkedTable) {
  std::vector<FlushDepth> depths;
  alter_ = [&depths](TlbFlush& flush) {
    depths.push_back(flush.depth);
    flush.depth = FlushDepth::kLeafs;
  };
  auto vm = Run();
  vm->state().vcpus[0]->HandleRequests();
  EXPECT_THAT(depths, Each(GetParam().unlinks_table ? FlushDepth::kTables
                                                    : FlushDepth::kLeafs));
  EXPECT_EQ(AuditFindings(*vm).find("INV-6") != std::string::npos,
            GetParam().unlinks_table);
}

// The flushes without mmu_lock are those of whole slots, which slots_lock keeps
// in place.
// Covers: TLB-03, TLB-05, TLB-06, TLB-10
TEST_P(FlushRuleTest, TheFlushIsIssuedUnderWhatTheRuleSays) {
  Run();
  ASSERT_THAT(g_flushes, Not(IsEmpty()));
  for (const SeenFlush& flush : g_flushes) {
    EXPECT_EQ(flush.mmu_lock, GetParam().mmu_lock);
    EXPECT_EQ(flush.rcu, GetParam().rcu);
    if (GetParam().mmu_lock == LockTrace::Held::kNothing) {
      EXPECT_TRUE(flush.slots_lock);
    }
  }
}

// A flush that came before the change would leave a vCPU that runs meanwhile
// with the old translation.
// Covers: TLB-11
TEST_P(FlushRuleTest, TheFlushComesAfterTheChange) {
  Run();
  ASSERT_TRUE(leaf_before_.IsPresent());
  ASSERT_THAT(g_flushes, Not(IsEmpty()));
  for (const SeenFlush& flush : g_flushes) EXPECT_NE(flush.leaf, leaf_before_);
}

INSTANTIATE_TEST_SUITE_P(
    Section11, FlushRuleTest,
    Values(
        // These flush after the lock was dropped, before the caller returns.
        Rule{"WriteProtectOfASlot", Level::k4K, LockTrace::Held::kNothing,
             false, WritePage, [](Vm& vm) { StartLog(vm); }, WriteIsInNoLog},
        Rule{"ClearOfAnEpoch", Level::k4K, LockTrace::Held::kNothing, false,
             WriteUnderLog, ClearAll, WriteIsInNoLog},
        Rule{"GetAndClear", Level::k4K, LockTrace::Held::kNothing, false,
             WriteUnderLog,
             [](Vm& vm) {
               EXPECT_TRUE(GetAndClearDirtyLog(vm.state(), 0, nullptr).ok());
             },
             WriteIsInNoLog},
        Rule{"ClearOfABitmap", Level::k4K, LockTrace::Held::kNothing, false,
             WriteUnderLog,
             [](Vm& vm) {
               EXPECT_TRUE(ClearBitmap(vm.state(), 0, 0, kSlotPages,
                                       MaskOf(kSlotPages, {kPage}), nullptr)
                               .ok());
             },
             WriteIsInNoLog},
        // These flush under the lock, before the tables can be freed.
        Rule{"ZapInAValidRoot", Level::k4K, LockTrace::Held::kWrite, true,
             WritePage,
             [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(kPage), 1)); },
             ReadNeedsNoFault},
        Rule{"HostUnmapsThePage", Level::k4K, LockTrace::Held::kWrite, true,
             WritePage,
             [](Vm& vm) {
               HostUnmaps(vm, HostPagesOf(vm, 0, kPage, kPage + 1));
             },
             ReadNeedsNoFault},
        Rule{"RecoveryOfAnNxHugePage", Level::k2M, LockTrace::Held::kRead, true,
             [](Vm& vm) {
               vm.state().nx_huge_pages.SetMitigated(true);
               Exec(vm, kPageGpa);
             },
             [](Vm& vm) { EXPECT_EQ(RecoverNxHugePages(vm.state(), 1), 1u); },
             ReadNeedsNoFault, /*unlinks_table=*/true},
        Rule{"RecoveryOfAHugePage", Level::k2M, LockTrace::Held::kRead, true,
             [](Vm& vm) {
               Read(vm, 0);
               Split(vm, GfnRange::Of(Gfn(0), k2MPages));
               vm.state().vcpus[0]->tlb().FlushAll();
               Write(vm, kPageGpa, 1);
             },
             [](Vm& vm) { Recover(vm, GfnRange::Of(Gfn(0), k2MPages)); },
             UsesSmallTranslation, /*unlinks_table=*/true},
        Rule{"HugeLeafInPlaceOfATable", Level::k2M, LockTrace::Held::kRead,
             true,
             [](Vm& vm) {
               Read(vm, 0);
               Split(vm, GfnRange::Of(Gfn(0), k2MPages));
               vm.state().vcpus[0]->tlb().FlushAll();
               Write(vm, kPageGpa, 1);
               ZapLeafs(vm, GfnRange::Of(Gfn(9), 1));
               Read(vm, kPageGpa);
             },
             // Another vCPU faults on page 9, which is not mapped.
             [](Vm& vm) { Read(vm, 9 * kPageSize, 1); }, UsesSmallTranslation,
             /*unlinks_table=*/true}),
    [](const auto& rule) { return std::string(rule.param.name); });

// An operation that flushes for a part of the guest's memory.
struct PartialFlush {
  const char* name;
  Level host_page_level;
  FlushReason reason;
  std::function<void(Vm&)> run;
};
std::ostream& operator<<(std::ostream& os, const PartialFlush& flush) {
  return os << flush.name;
}

class PartialFlushTest : public ::testing::TestWithParam<PartialFlush> {
 protected:
  void ExpectOneFlush(bool precise);
};

// Most processors have no flush of a range. With such TLBs a flush for one
// page, one huge page or one slot drops all translations of all vCPUs, those of
// other pages and slots too. A precise TLB keeps those of the other slot. Both
// count one flush.
// Covers: TLB-03
TEST_P(PartialFlushTest, ItEmptiesWholeTlbsAndCountsOnce) {
  ExpectOneFlush(/*precise=*/false);
}
// Covers: TLB-03
TEST_P(PartialFlushTest, APreciseTlbKeepsTheOtherSlotAndCountsOnce) {
  ExpectOneFlush(/*precise=*/true);
}

void PartialFlushTest::ExpectOneFlush(bool precise) {
  constexpr uint64_t kOtherSlotPage = kGiB / kPageSize + 700;
  constexpr uint64_t kPages[] = {kPage, kPage + k2MPages, kOtherSlotPage};
  VmConfig config;
  config.vcpu_count = 2;
  config.memslots = {
      Slot(0, 0, kSlotPages * kPageSize, GetParam().host_page_level),
      Slot(1, kGiB, 4 * kMiB)};
  // Any seed other than 0 makes these options a choice of this test.
  config.tlb = {.flushes = precise ? TlbOptions::Flushes::kPrecise
                                   : TlbOptions::Flushes::kWhole,
                .evictions = TlbOptions::Evictions::kNever,
                .seed = 1};
  auto vm = MakeVmFrom(config);
  const auto has = [&](size_t vcpu, uint64_t page) {
    return vm->state().vcpus[vcpu]->tlb().Lookup(PageNumber(page)) != nullptr;
  };
  for (const int vcpu : {0, 1}) {
    for (const uint64_t page : kPages) {
      Touch(*vm, GfnRange::Of(Gfn(page), 1), AccessKind::kWrite, vcpu);
    }
    for (const uint64_t page : kPages) ASSERT_TRUE(has(vcpu, page)) << page;
    ASSERT_EQ(vm->VcpuStats()[vcpu].tlb_flush, 0u);
  }
  const FlushMetrics before = vm->Stats().flush;
  vm->state().vcpus[1]->EnterGuest();
  GetParam().run(*vm);
  vm->state().vcpus[1]->ExitGuest();
  const FlushMetrics after = vm->Stats().flush;
  EXPECT_EQ(after.remote_tlb_flush_requests,
            before.remote_tlb_flush_requests + 1);
  EXPECT_EQ(after.remote_tlb_flush, before.remote_tlb_flush + 1);
  EXPECT_EQ(after.Flushes(FlushScope::kRange, GetParam().reason), 1u);
  EXPECT_EQ(after.Flushes(FlushScope::kVm, GetParam().reason), 0u);
  for (const int vcpu : {0, 1}) {
    EXPECT_TRUE(vm->state().vcpus[vcpu]->HandleRequests());
    EXPECT_EQ(vm->VcpuStats()[vcpu].tlb_flush, 1u);
    EXPECT_FALSE(has(vcpu, kPage));
    EXPECT_EQ(has(vcpu, kOtherSlotPage), precise);
    if (!precise) {
      EXPECT_FALSE(has(vcpu, kPage + k2MPages));
    }
  }
  EXPECT_EQ(AuditFindings(*vm), "");
}

INSTANTIATE_TEST_SUITE_P(
    Parts, PartialFlushTest,
    Values(
        PartialFlush{"Page", Level::k4K, FlushReason::kZap,
                     [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(kPage), 1)); }},
        PartialFlush{"HugePage", Level::k2M, FlushReason::kZap,
                     [](Vm& vm) { ZapLeafs(vm, GfnRange::Of(Gfn(kPage), 1)); }},
        PartialFlush{"Slot", Level::k4K, FlushReason::kWriteProtect,
                     [](Vm& vm) {
                       DirtyLogConfig config;
                       config.slots = {0};
                       config.split = SplitPolicy::kNone;
                       EXPECT_TRUE(testing::StartLog(vm, config, nullptr).ok());
                     }}),
    [](const auto& flush) { return std::string(flush.param.name); });

// A ring reset protects the pages of the entries, so it must flush.
// Covers: DL-43, TLB-05
TEST(FlushRulesTest, AResetOfTheRingsFlushesWhatItProtected) {
  for (const bool skip : {false, true}) {
    auto vm = MakeRingVm({Slot(0, 0, kSlotPages * kPageSize)}, 256);
    StartLog(*vm);
    Write(*vm, kPageGpa, 1);
    SealAndList(*vm, 0);  // collects the entries
    g_skip_flushes = skip;
    EXPECT_EQ(*ResetDirtyRings(
                  vm->state(), [] { return false; }, nullptr),
              1u);
    g_skip_flushes = false;
    Write(*vm, kPageGpa, 2);
    EXPECT_EQ(vm->state().vcpus[0]->dirty_ring()->used(), skip ? 0u : 1u);
  }
}

// W is clear, but the operation that cleared it has not flushed yet. An
// operation that then clears MMU-writable must flush under the lock.
// Covers: TLB-06, TLB-08, TDP-56
TEST(FlushRulesTest, WhoTakesMmuWritableFlushesForWhatOthersOwe) {
  for (const bool flush : {true, false}) {
    auto vm = MakeVm({Slot(0, 0, kSlotPages * kPageSize)});
    Write(*vm, kPageGpa, 1);
    WriteProtect(*vm, GfnRange::Of(Gfn(kPage), 1));  // its flush is still due
    {
      MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kClear);
      ASSERT_TRUE(
          vm->state().tdp.WriteProtectGfn(lock, 0, Gfn(kPage), Level::k4K));
      if (flush) {
        TlbFlushBatch batch(vm->state().tlb, FlushScope::kRange,
                            FlushReason::kWriteProtect);
        batch.Add(GfnRange::Of(Gfn(kPage), 1));
        batch.Flush(nullptr);
      }
    }
    const uint64_t taken = vm->VcpuStats()[0].pf_taken;
    Write(*vm, kPageGpa, 2);
    EXPECT_EQ(vm->VcpuStats()[0].pf_taken == taken, !flush);
  }
}

// Runs a zap while another thread waits for mmu_lock. When the lock is first
// dropped, vCPU 0 handles its requests. Returns whether its TLB still has page
// 0, which is zapped by then.
bool StaleAtTheYield(bool skip) {
  auto vm = MakeVm({Slot(0, 0, kSlotPages * kPageSize)});
  Touch(*vm, GfnRange::Of(Gfn(0), 8));
  Vcpu& vcpu = *vm->state().vcpus[0];
  EXPECT_NE(vcpu.tlb().Lookup(PageNumber(0)), nullptr);
  std::optional<bool> stale;
  std::unique_ptr<Waiter> waiter;
  g_skip_flushes = skip;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kYield || stale.has_value()) return;
      vcpu.HandleRequests();
      stale = vcpu.tlb().Lookup(PageNumber(0)) != nullptr;
    });
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    waiter = std::make_unique<Waiter>(vm->state().mmu_lock, lock);
    vm->state().tdp.ZapLeafs(lock, 0, GfnRange::Of(Gfn(0), 8),
                             RootFilter::kValid, FlushReason::kZap, nullptr);
  }
  waiter.reset();
  g_skip_flushes = false;
  EXPECT_TRUE(stale.has_value()) << "it did not yield";
  return stale.value_or(false);
}

// Covers: TLB-09, TDP-21
TEST(FlushRulesTest, NobodyRunsOnZappedPagesWhileTheZapYields) {
  EXPECT_FALSE(StaleAtTheYield(/*skip=*/false));
  EXPECT_TRUE(StaleAtTheYield(/*skip=*/true));
}

// A yield flushes, then ends the RCU section, then drops the lock.
// Covers: TDP-21, TDP-52
TEST(FlushRulesTest, ARecoveryThatYieldsFlushesThenLeavesRcuThenUnlocks) {
  auto vm = MakeVm({Slot(0, 0, kSlotPages * kPageSize, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  Split(*vm, GfnRange::Of(Gfn(0), kSlotPages));
  std::unique_ptr<std::thread> waiter;
  size_t flushes_at_yield = 0;
  g_flushes.clear();
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kChosenToLink && waiter == nullptr) {
        waiter = std::make_unique<std::thread>([&] {
          MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kNotifier);
        });
        Await("a thread waits for mmu_lock",
              [&] { return vm->state().mmu_lock.IsContended(); });
      }
      if (event.point == HookPoint::kYield && flushes_at_yield == 0) {
        flushes_at_yield = g_flushes.size();
        EXPECT_FALSE(event.rcu);
        EXPECT_EQ(event.mmu_lock, LockTrace::Held::kRead);
      }
    });
    g_trace = &trace;
    EXPECT_EQ(Recover(*vm, GfnRange::Of(Gfn(0), kSlotPages)).to_2m_count, 2u);
    g_trace = nullptr;
    EXPECT_GE(trace.CountOf(HookPoint::kYield), 1);
  }
  waiter->join();
  EXPECT_EQ(flushes_at_yield, 1u) << "before the lock was dropped";
  EXPECT_THAT(g_flushes, Each(Field(&SeenFlush::rcu, true)));
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace testing
}  // namespace mmu
