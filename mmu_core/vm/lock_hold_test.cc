// The work in one hold of mmu_lock, in changed SPTEs. The test counts them at
// the hooks beside each change. No time passes and no thread waits, so only the
// limit on SPTEs ends a hold, on any machine.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/hold_clock.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StillHoldClock;
using ::mmu::testing::StopLog;
using ::mmu::testing::Touch;

constexpr uint64_t kTables = 40;
constexpr uint64_t kPages = kTables * PagesPer(Level::k2M);
constexpr GfnRange kAll = {Gfn(0), Gfn(kPages)};
// A walk notices the end of a hold with a delay of up to one table.
constexpr int64_t kStep = kEntriesPerTable;

// The number of SPTEs that one operation changed.
struct Work {
  int64_t all = 0;   // SPTEs, in all holds
  int64_t most = 0;  // in one hold
};

// Counts the SPTEs that the calling thread changes in `operation`.
Work WorkOf(const Vm& vm, const std::function<void()>& operation) {
  Work work;
  int64_t in_hold = 0;
  // No hook counts the leafs that the shadow MMU drops, so the gauge counts
  // them.
  const auto leafs = [&vm] {
    return static_cast<int64_t>(vm.Stats().pages_4k);
  };
  const bool shadow = vm.config().mmu == MmuMode::kTdpShadow;
  int64_t leafs_before = leafs();
  const StillHoldClock clock;
  LockTrace trace([&](const LockTrace::Event& event) {
    switch (event.point) {
      case HookPoint::kEntryToAnd:
        ++in_hold;
        break;
      case HookPoint::kTableFilledToLink:
      case HookPoint::kUnlinkToFreeze:
        in_hold += kEntriesPerTable;
        break;
      case HookPoint::kUnlock:
        if (shadow) {
          in_hold += std::max<int64_t>(0, leafs_before - leafs());
          leafs_before = leafs();
        }
        work.all += in_hold;
        work.most = std::max(work.most, in_hold);
        in_hold = 0;
        break;
      default:
        break;
    }
  });
  operation();
  return work;
}

class LockHoldTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  std::unique_ptr<Vm> Make(Level host_page_level) {
    VmConfig config;
    config.mmu = GetParam();
    config.memslots = {Slot(0, 0, kPages << kPageShift, host_page_level)};
    auto vm = MakeVmFrom(config);
    Touch(*vm, kAll);
    return vm;
  }
  bool splits() const { return GetParam() == MmuMode::kTdp; }

  static DirtyLogConfig Eager(absl::Duration max_lock_hold) {
    DirtyLogConfig log;
    log.split = SplitPolicy::kEager;
    log.max_lock_hold = max_lock_hold;
    return log;
  }
};

// Covers: TDP-20, TDP-24
TEST_P(LockHoldTest, ProtectingKeepsTheLimitThatItWasAskedFor) {
  for (const auto& [asked, entries] :
       std::vector<std::pair<absl::Duration, int64_t>>{
           {kDefaultMaxLockHold, 8192},
           {absl::Seconds(1), 8192},
           {absl::Microseconds(100), 4096},
           {absl::Microseconds(10), 512}}) {
    SCOPED_TRACE(asked);
    auto vm = Make(Level::k4K);
    const Work work = WorkOf(*vm, [&, hold = asked] {
      ASSERT_TRUE(StartLog(*vm, Eager(hold), nullptr).ok());
    });
    EXPECT_EQ(work.all, static_cast<int64_t>(kPages));
    EXPECT_LE(work.most, entries + kStep);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// The split and the protection that follows it share one hold and its limit.
// Covers: TDP-20, TDP-24, DL-02
TEST_P(LockHoldTest, SplittingAndProtectingShareALimit) {
  if (!splits()) return;
  auto vm = Make(Level::k2M);
  const Work work = WorkOf(*vm, [&] {
    ASSERT_TRUE(StartLog(*vm, Eager(absl::Microseconds(100)), nullptr).ok());
  });
  EXPECT_EQ(work.all, static_cast<int64_t>(2 * kPages)) << "split, protected";
  EXPECT_LE(work.most, 4096 + kStep);
  EXPECT_EQ(vm->Stats().pages_4k, kPages);
}

// Covers: TDP-20, TDP-24
TEST_P(LockHoldTest, AStepOfASplitJobKeepsItsLimit) {
  if (!splits()) return;
  auto vm = Make(Level::k2M);
  SplitRequest request;
  request.throttle.chunk_bytes = static_cast<int64_t>(kAll.bytes());
  request.throttle.max_lock_hold = absl::Microseconds(100);
  const auto job = SplitJob::Create(vm->state(), request);
  ASSERT_TRUE(job.ok());
  const Work work = WorkOf(*vm, [&] { ASSERT_TRUE((*job)->Run().ok()); });
  EXPECT_EQ(work.all, static_cast<int64_t>(kPages));
  EXPECT_LE(work.most, 4096 + kStep);
}

// Covers: TDP-20
TEST_P(LockHoldTest, AClearKeepsTheLimitWithAndWithoutSplitting) {
  for (const Level host : {Level::k4K, Level::k2M}) {
    SCOPED_TRACE(ToInt(host));
    if (host == Level::k2M && !splits()) continue;
    auto vm = Make(host);
    DirtyLogConfig log;
    log.initially_set = InitiallySet::kYes;
    log.split = SplitPolicy::kOnClear;
    ASSERT_TRUE(StartLog(*vm, log, nullptr).ok());
    uint64_t epoch = 0;
    const std::vector<uint64_t> pages = SealAndList(*vm, 0, &epoch);
    ASSERT_EQ(pages.size(), kPages);
    const std::vector<uint64_t> mask = MaskOf(kPages, pages);
    const Work work = WorkOf(*vm, [&] {
      ASSERT_TRUE(
          ClearAndDeliver(*vm, 0, epoch, 0, kPages, mask, nullptr).ok());
    });
    EXPECT_EQ(work.all,
              static_cast<int64_t>(host == Level::k4K ? kPages : 2 * kPages));
    EXPECT_LE(work.most, HoldLimit::kMaxEntries + kStep);
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

// Covers: TDP-52
TEST_P(LockHoldTest, ARecoveryKeepsTheLimit) {
  auto vm = Make(Level::k2M);
  DirtyLogConfig log = Eager(kDefaultMaxLockHold);
  ASSERT_TRUE(StartLog(*vm, log, nullptr).ok());
  Touch(*vm, kAll);
  ASSERT_EQ(vm->Stats().pages_4k, kPages);
  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kNo, Undelivered::kDiscard, nullptr).ok());
  const Work work =
      WorkOf(*vm, [&] { ASSERT_TRUE(vm->RecoverHugePages({}, nullptr).ok()); });
  EXPECT_GE(work.all, static_cast<int64_t>(kPages));
  EXPECT_LE(work.most, HoldLimit::kMaxEntries + kStep);
  EXPECT_EQ(vm->Stats().pages_4k, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

INSTANTIATE_TEST_SUITE_P(Mmus, LockHoldTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow),
                         [](const auto& param) {
                           return std::string(param.param == MmuMode::kTdp
                                                  ? "Tdp"
                                                  : "TdpShadow");
                         });

}  // namespace
}  // namespace mmu
