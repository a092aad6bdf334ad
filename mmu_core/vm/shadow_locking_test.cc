// The rows of the shadow MMU in the table of operations in mmu_core/LOCKING.md:
// the modes in which each operation takes mmu_lock, and that it allocates
// nothing under the lock. The rows of single MMUs are in locking_table_test.cc.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/locked_allocations.h"
#include "mmu_core/testing/mutex_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kBytes = 32 * kMiB;

// L1, with L2 that has touched four large pages, on a host with large pages.
class Guest {
 public:
  Guest()
      : vm_(MakeVmFrom(Config())),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        l1_(cpu_, vm_->GuestSpace(),
            {.ad_bits = true, .max_page = Level::k2M}) {
    EXPECT_TRUE(l1_.Boot().ok());
    for (uint64_t i = 0; i < 4; ++i) WriteL2(i * 2 * kMiB);
  }

  Vm& vm() { return *vm_; }
  L1Hypervisor& l1() { return l1_; }
  ShadowVcpu& shadow() { return *vm_->state().vcpus[0]->shadow(); }

  void WriteL2(uint64_t nested) {
    uint64_t word = 1;
    EXPECT_TRUE(l1_.Access(Gpa(nested), AccessKind::kWrite, &word).ok());
  }
  // The gpa of L1's table of `level` for nested gpa 0.
  uint64_t TableOf(int level) {
    uint64_t table = l1_.root().value();
    for (int at = 4; at > level; --at) {
      table = ReadValue(*vm_, table) & 0x000f'ffff'ffff'f000;
    }
    return table;
  }

 private:
  static VmConfig Config() {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.memslots = {Slot(0, 0, kBytes, Level::k2M)};
    return config;
  }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
};

struct Row {
  const char* operation;
  const char* modes;
  std::function<void(Guest&)> prepare;
  std::function<void(Guest&)> run;
};
std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.operation;
}
void Nothing(Guest&) {}

class ShadowLockingTest : public ::testing::TestWithParam<Row> {};

// Covers: LCK-01, LCK-02
TEST_P(ShadowLockingTest, HoldsWhatTheTableSays) {
  const Row& row = GetParam();
  Guest guest;
  row.prepare(guest);
  {
    LockTrace trace;
    row.run(guest);
    EXPECT_EQ(trace.Modes(), row.modes);
    for (const LockTrace::Event& event : trace.events()) {
      if (!MaySleepAt(event.point)) continue;
      EXPECT_EQ(event.mmu_lock, LockTrace::Held::kNothing)
          << ToString(event.point);
      if (event.point == HookPoint::kTopUp) {
        EXPECT_FALSE(event.rcu) << "it may wait for a grace period";
      }
    }
  }
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

INSTANTIATE_TEST_SUITE_P(
    Rows, ShadowLockingTest,
    ::testing::Values(
        Row{"ShadowFault", "write",
            [](Guest& g) {
              // L1 maps a page there, but the shadow MMU has no SPTE for it.
              MmuWriteLocked lock(g.vm().state().mmu_lock, LockOp::kZap);
              g.vm().state().shadow->pages().zap().ZapAll(lock, nullptr);
            },
            [](Guest& g) { g.WriteL2(0); }},
        Row{"PageBecomesUnsync", "read",
            [](Guest& g) {
              EXPECT_TRUE(g.l1().Demote(Gpa(0)).ok());
              g.WriteL2(0);
            },
            [](Guest& g) {
              const uint64_t table = g.TableOf(1);
              Write(g.vm(), table + 8 * 511,
                    ReadValue(g.vm(), table + 8 * 511));
            }},
        Row{"GuestTableIsWritten", "write", Nothing,
            [](Guest& g) { Write(g.vm(), g.TableOf(4) + 8 * 511, 0); }},
        Row{"SyncAfterInvept", "write", Nothing,
            [](Guest& g) {
              g.shadow().InvalidateAll();
              g.WriteL2(0);
            }},
        Row{"Invlpg", "none", Nothing,
            [](Guest& g) { g.shadow().InvalidatePage(0); }},
        Row{"InvlpgOfWhatIsUnsync", "write",
            [](Guest& g) {
              EXPECT_TRUE(g.l1().Demote(Gpa(0)).ok());
              g.WriteL2(0);
              const uint64_t table = g.TableOf(1);
              Write(g.vm(), table + 8 * 511,
                    ReadValue(g.vm(), table + 8 * 511));
            },
            [](Guest& g) { g.shadow().InvalidatePage(0); }},
        Row{"ReleaseRoots", "write", Nothing,
            [](Guest& g) { g.shadow().ReleaseRoots(); }},
        Row{"FastZapOfBoth", "write read", Nothing,
            [](Guest& g) {
              MutexLock lock(g.vm().state().slots.slots_lock);
              g.vm().state().mmus.FastZapAll(LockOp::kZap, nullptr);
            }},
        Row{"Age", "none", Nothing,
            [](Guest& g) {
              EXPECT_TRUE(g.vm()
                              .Age(GfnRange::Of(Gfn(0), kBytes / kPageSize),
                                   AgeMode::kTestAndClear, nullptr)
                              .ok());
            }},
        Row{"HostUnmaps", "write", Nothing,
            [](Guest& g) {
              HostUnmaps(g.vm(), HostPagesOf(g.vm(), 0, 0, kBytes / kPageSize));
            }},
        Row{"EnableLog", "write read", Nothing,
            [](Guest& g) { EXPECT_TRUE(StartLog(g.vm(), {}, nullptr).ok()); }},
        Row{"RecoverHugePages", "write read",
            [](Guest& g) {
              EXPECT_TRUE(StartLog(g.vm(), {}, nullptr).ok());
              EXPECT_TRUE(StopLog(g.vm(), RecoverOnStop::kNo,
                                  Undelivered::kDiscard, nullptr)
                              .ok());
            },
            [](Guest& g) {
              EXPECT_TRUE(g.vm().RecoverHugePages({}, nullptr).ok());
            }}),
    [](const auto& p) { return std::string(p.param.operation); });

// The start of a log splits L2's huge pages, for which it needs tables. It has
// mmu_lock in write mode by then, and drops the lock for as long as it fills
// its caches. slots_lock keeps other splits from these caches meanwhile.
//
// Covers: LCK-01, LCK-05
TEST(ShadowLockingRulesTest, ASplitDropsTheLockToFillItsCaches) {
  Guest guest;
  Mutex& slots_lock = guest.vm().state().slots.slots_lock;
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  int dropped = 0;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kTopUp) return;
      EXPECT_TRUE(IsHeld(slots_lock));
    });
    ASSERT_TRUE(StartLog(guest.vm(), log, nullptr).ok());
    EXPECT_EQ(trace.HeldAt(HookPoint::kTopUp), "none/-");
    for (size_t i = 1; i < trace.events().size(); ++i) {
      const LockTrace::Event& before = trace.events()[i - 1];
      dropped += trace.events()[i].point == HookPoint::kTopUp &&
                 before.point == HookPoint::kUnlock &&
                 before.mmu_lock == LockTrace::Held::kWrite;
    }
  }
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// Covers: LCK-05
TEST(ShadowLockingRulesTest, AFaultDoesNotTouchTheCachesOfSplits) {
  Guest guest;
  VmState& state = guest.vm().state();
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(guest.vm(), log, nullptr).ok());
  const auto stock = [&] {
    MutexLock lock(state.slots.slots_lock);
    const ShadowCaches& caches = state.shadow->split_caches();
    return std::array{caches.tables.count(), caches.states.count(),
                      caches.translations.count(), caches.lists.count()};
  };
  const auto before = stock();
  EXPECT_GT(before[0], 0);
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kZap);
    state.shadow->pages().zap().ZapAll(lock, nullptr);
  }
  guest.WriteL2(0);
  EXPECT_GT(state.shadow->pages().in_use(), 0u);
  EXPECT_EQ(stock(), before);
}

// Without the lock a thread learns only whether there are indirect pages. That
// changes twice here: when the last page goes, and when the first one comes.
// Covers: LCK-06
TEST(ShadowLockingRulesTest, IndirectPagesComeAndGoUnderTheLockInWriteMode) {
  Guest guest;
  VmState& state = guest.vm().state();
  const auto& tracking = state.shadow->pages().tracking();
  struct Change {
    bool any;
    LockTrace::Event seen;
  };
  std::vector<Change> changes;
  bool any = tracking.AnyIndirectPages();
  ASSERT_TRUE(any);
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (tracking.AnyIndirectPages() == any) return;
      any = !any;
      changes.push_back({any, event});
    });
    {
      MutexLock lock(state.slots.slots_lock);
      state.mmus.FastZapAll(LockOp::kZap, nullptr);
    }
    guest.shadow().ReleaseRoots();
    EXPECT_FALSE(any);
    guest.WriteL2(0);
    EXPECT_TRUE(any);
  }
  ASSERT_EQ(changes.size(), 2u);
  for (const Change& change : changes) {
    EXPECT_EQ(change.seen.mmu_lock, LockTrace::Held::kWrite) << change.any;
    // Nothing had changed when the lock was taken.
    EXPECT_NE(change.seen.point, HookPoint::kWriteLocked) << change.any;
  }
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

}  // namespace
}  // namespace mmu::testing
