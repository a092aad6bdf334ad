// RACE-36: roots of vCPUs against a fast zap of the whole VM. The steps are
// those of ShadowRoots::SwitchTo.

#include <cstdint>
#include <thread>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/testing/await.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/shadow_vcpu_test_util.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kVa = 0x12345000;
constexpr GuestPageAccess kRead = {.kind = AccessKind::kRead};

class ShadowRootsRaceTest : public ::testing::Test {
 protected:
  ShadowRootsRaceTest() : vm_({}) {
    vm_.memory.AddSlot(GfnRange::Of(Gfn(0), 8192));
    vm_.tlb.AddVcpu(&gate_);
    for (uint64_t table : {10, 20}) {
      PutPath(vm_.memory, vcpu_.guest().walker, table, kVa, EntryTo(600));
      vcpu_.LoadCr3(Gfn(table));
      EXPECT_EQ(vcpu_.Fault(kVa, kRead), FaultResult::kFixed);
    }
  }
  ~ShadowRootsRaceTest() override {
    vcpu_.roots().FreeAll(nullptr);
    EXPECT_EQ(vm_.AuditFindings(), "");
    vm_.tlb.RemoveVcpu(&gate_);
  }

  // The steps of a vCPU before it walks its tables.
  void BeforeAccess() {
    if ((gate_.TakeRequests() & kFreeObsoleteRoots) != 0) {
      vcpu_.roots().FreeObsolete(nullptr);
    }
    if (vcpu_.roots().table() == nullptr) {
      ASSERT_TRUE(vcpu_.Load().ok());
    }
  }

  ShadowTestVm vm_;
  ShadowTestVcpu vcpu_{vm_, kFourLevelPaging};
  VcpuGate gate_;
};

TEST_F(ShadowRootsRaceTest, AKeptRootThatIsZappedWhileItIsTakenIsNotWalked) {
  vcpu_.where().table = Gfn(10);
  Interleaving threads;
  threads.Add("vcpu", [&] {
    EXPECT_TRUE(vcpu_.roots().SwitchTo(vcpu_.guest(), vcpu_.where(), nullptr));
    EXPECT_TRUE(vcpu_.roots().IsObsolete());
    // A fault under way finds out that the root is obsolete, too.
    EXPECT_EQ(vcpu_.Fault(kVa, kRead), FaultResult::kRetry);
    BeforeAccess();
    EXPECT_FALSE(vcpu_.roots().IsObsolete());
    EXPECT_EQ(vcpu_.Fault(kVa, kRead), FaultResult::kFixed);
  });
  threads.Add("zap", [&] { vm_.FastZap(); });
  threads.RunTo("vcpu", HookPoint::kRootFoundToUse);  // V1
  threads.RunToEnd("zap");                            // Z1, Z2
  threads.RunToEnd("vcpu");                           // V2, V3
  EXPECT_TRUE(vcpu_.Translate(kVa).present);
}

TEST_F(ShadowRootsRaceTest, ARootThatIsLoadedInAGapOfTheZapStays) {
  // The zap needs several batches for this number of pages, and takes the
  // newest last.
  constexpr uint64_t kTables = 2 * ShadowZap::kBatch;
  for (uint64_t i = 1; i <= kTables; ++i) {
    ShadowTestVcpu other(vm_, kFourLevelPaging);
    other.LoadCr3(Gfn(100 + i));
  }
  const ShadowPageState* const before = vm_.PagesOf(100 + kTables)[0];
  vcpu_.roots().FreeAll(nullptr);
  vcpu_.where().table = Gfn(100 + kTables);
  Interleaving threads;
  threads.Add("zap", [&] { vm_.FastZap(); });
  threads.Add("vcpu", [&] { ASSERT_TRUE(vcpu_.Load().ok()); });
  threads.RunTo("zap", HookPoint::kWriteLocked);
  threads.Start("vcpu");
  Await("a thread waits for mmu_lock",
        [&] { return vm_.mmu_lock.IsContended(); });
  threads.RunTo("zap", HookPoint::kYield);  // Z2
  EXPECT_GE(vm_.pages.in_use(), ShadowZap::kBatch) << "there is a gap";
  threads.RunToEnd("zap");
  threads.WaitForEnd("vcpu");
  EXPECT_EQ(vm_.pages.in_use(), 1u);
  EXPECT_NE(vcpu_.roots().TopPage(kVa), before);
  EXPECT_FALSE(vcpu_.roots().IsObsolete());
  BeforeAccess();  // the zap's request is pending; the vCPU keeps its root
  EXPECT_EQ(vm_.pages.in_use(), 1u);
  EXPECT_NE(vcpu_.roots().table(), nullptr);
}

}  // namespace
}  // namespace mmu::testing
