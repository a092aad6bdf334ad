// The auditor finds each way in which the next write of the guest would be in
// no dirty log, in each kind of MMU.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/audited_guest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/fault_injection.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr uint64_t kPages = AuditedGuest::kBytes >> kPageShift;
constexpr uint64_t kPage = 100;  // of the guest

class AuditLogsTest : public ::testing::TestWithParam<AuditedMmu> {
 protected:
  // The log is on, and the guest's page is sealed.
  AuditLogsTest() : guest_(GetParam()) {
    guest_.Write(kPage);
    gfn_ = guest_.GfnOf(kPage);
    EXPECT_TRUE(StartLog(vm()).ok());
    guest_.Write(kPage);
    SealAndList(vm(), 0, &epoch_);
    EXPECT_EQ(AuditFindings(vm()), "");
  }

  Vm& vm() { return guest_.vm(); }
  void Clear() {
    EXPECT_TRUE(
        ClearLog(vm(), 0, epoch_, 0, kPages, MaskOf(kPages, {gfn_.value()}))
            .ok());
  }
  // The findings while the leaf has W.
  std::string FindingsWithWrite(const LeafPlace& leaf) {
    const Spte before =
        leaf.slot->Exchange(guest_.format().WithWrite(leaf.slot->Load()));
    const std::string findings = AuditFindings(vm());
    leaf.slot->Store(before);
    return findings;
  }

  AuditedGuest guest_;
  Gfn gfn_;
  uint64_t epoch_ = 0;
};

// The TLB still allows the write that the clear wants to notice.
TEST_P(AuditLogsTest, AClearWithoutItsFlushIsFound) {
  guest_.Read(kPage);
  const uint64_t before = SkippedFlushes();
  ArmSkipOneFlush(FlushReason::kClearDirty, 1);
  Clear();
  ArmSkipOneFlush(FlushReason::kClearDirty, 0);
  ASSERT_EQ(SkippedFlushes(), before + 1);
  EXPECT_THAT(AuditFindings(vm()), HasSubstr("INV-6: vCPU 0 may write page"));
  // The flush that was owed.
  guest_.state().tlb.Flush(FlushScope::kVm, FlushReason::kClearDirty, nullptr);
  EXPECT_EQ(AuditFindings(vm()), "");
}

// The page is being copied; a write to it now would be in no later copy.
TEST_P(AuditLogsTest, AWritablePageInFlightIsFound) {
  Clear();
  const std::vector<LeafPlace> leafs = guest_.WritableLeafsOf(gfn_);
  ASSERT_FALSE(leafs.empty());
  for (const LeafPlace& leaf : leafs) {
    EXPECT_THAT(FindingsWithWrite(leaf),
                HasSubstr(absl::StrFormat(
                    "INV-5: gfn 0x%x of slot 0 is writable (level 1) and clean",
                    gfn_.value())));
  }
  EXPECT_EQ(AuditFindings(vm()), "");
}

INSTANTIATE_TEST_SUITE_P(All, AuditLogsTest, ::testing::ValuesIn(kAuditedMmus),
                         [](const auto& p) {
                           return std::string(NameOf(p.param));
                         });

// One gfn is mapped twice by L2.
TEST(AuditOfAliasesTest, EachSpteThatMapsACleanPageIsLookedAt) {
  AuditedGuest guest(AuditedMmu::kNestedL2);
  guest.Write(kPage);
  const Gfn gfn = guest.GfnOf(kPage);
  const Gpa alias((kPage + 50) << kPageShift);
  ASSERT_TRUE(guest.l1()->Alias(Gpa(kPage << kPageShift), alias).ok());
  guest.Write(kPage + 50);
  guest.Write(kPage);
  ASSERT_TRUE(StartLog(guest.vm()).ok());
  EXPECT_EQ(AuditFindings(guest.vm()), "");
  const std::vector<LeafPlace> leafs = guest.WritableLeafsOf(gfn);
  ASSERT_THAT(leafs, SizeIs(2));
  for (const LeafPlace& leaf : leafs) {
    const Spte before =
        leaf.slot->Exchange(guest.format().WithWrite(leaf.slot->Load()));
    EXPECT_THAT(AuditFindings(guest.vm()), HasSubstr("INV-5: gfn 0x"));
    leaf.slot->Store(before);
  }
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

}  // namespace
}  // namespace mmu::testing
