#include "mmu_core/shadow/shadow_audit.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/testing/shadow_audit_test_util.h"
#include "mmu_core/testing/shadow_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::DirectRole;
using ::mmu::testing::IndirectRole;
using ::mmu::testing::ShadowFixture;
using ::mmu::testing::ShadowTestAudit;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Each test breaks one rule, expects the auditor to find it, and repairs it.
class ShadowAuditTest : public ::testing::Test, protected ShadowFixture {
 protected:
  ShadowAuditTest() {
    Link(root_, 1, directory_);
    Link(directory_, 2, table_);
    Map(table_, 3, 700);
    Map(table_, 4, 701);
    Map(directory_, 5, 1024);
  }

  ShadowPageState& root_ = Page(1, IndirectRole(3));
  ShadowPageState& directory_ = Page(2, IndirectRole(2));
  ShadowPageState& table_ = Page(3, IndirectRole(1));
};

TEST_F(ShadowAuditTest, ATreeAsItShouldBeIsInOrder) {
  MarkUnsync(table_);
  ShadowTestAudit audit(vm_);
  EXPECT_EQ(audit.Run(lock_, pages_, Parts(), nullptr), "");
  EXPECT_EQ(audit.pages(), 3u);
  EXPECT_EQ(audit.leafs(), 3u);
}

TEST_F(ShadowAuditTest, AParentThatPointsElsewhereIsFound) {
  const Spte link = directory_.EntryAt(2).Load();
  directory_.EntryAt(2).Store(Spte::Initial());
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-1: page of gfn 0x3 level 1: "
                                         "has a parent"));
  directory_.EntryAt(2).Store(link);
  directory_.EntryAt(6).Store(link);
  EXPECT_THAT(AuditFindings(), HasSubstr("does not have it as a parent"));
  directory_.EntryAt(6).Store(Spte::Initial());
}

TEST_F(ShadowAuditTest, ALeafThatIsNotInItsRmapIsFound) {
  table_.SetTranslation(9, {Gfn(702), kAllRights});
  table_.EntryAt(9).Store(LeafTo(table_, 702));
  EXPECT_THAT(AuditFindings(),
              AllOf(HasSubstr("INV-11"), HasSubstr("gfn 0x2be 0 times")));
  table_.EntryAt(9).Store(Spte::Initial());

  const Spte leaf = table_.EntryAt(3).Load();
  ShadowPageState& alias = Page(4, IndirectRole(1));
  Map(alias, 0, 700);
  table_.EntryAt(3).Store(Spte::Initial());
  EXPECT_THAT(AuditFindings(),
              HasSubstr("gfn 0x2bc level 1 has something else"));
  table_.EntryAt(3).Store(leaf);
}

TEST_F(ShadowAuditTest, AWritableGuestTableIsFound) {
  const Spte writable = table_.EntryAt(3).Load();
  ShadowPageState& page = Page(700, IndirectRole(1));
  const Spte read_only = table_.EntryAt(3).Load();
  EXPECT_EQ(AuditFindings(), "");
  table_.EntryAt(3).Store(writable);
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-9"));
  MarkUnsync(page);
  EXPECT_EQ(AuditFindings(), "") << "the guest may write it now";
  table_.EntryAt(3).Store(read_only);

  Page(701, IndirectRole(2));
  table_.EntryAt(4).Store(LeafTo(table_, 701));
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-9"));
  table_.EntryAt(4).Store(
      SpteFormat::Ept().WithoutMmuWrite(LeafTo(table_, 701)));
}

TEST_F(ShadowAuditTest, AMissingWriteTrackerIsFound) {
  Rmaps(2).RemoveWriteTracker(lock_, Gfn(2));
  EXPECT_THAT(AuditFindings(),
              HasSubstr("gfn 0x2 has 0 write trackers, but 1 pages"));
  Rmaps(2).AddWriteTracker(lock_, Gfn(2));
}

TEST_F(ShadowAuditTest, AMissingUnsyncMarkIsFound) {
  MarkUnsync(table_);
  root_.unsync_child_bitmap.reset(1);
  root_.unsync_children = 0;
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-12: page of gfn 0x2"));
  root_.unsync_child_bitmap.set(1);
  EXPECT_THAT(AuditFindings(), HasSubstr("has 1 bits set, but counts 0"));
  root_.unsync_children = 1;
}

TEST_F(ShadowAuditTest, WrongCountersAreFound) {
  ShadowCounters::Add(counters_.shadow.mmu_unsync);
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-12: mmu_unsync is 1"));
  ShadowCounters::Subtract(counters_.shadow.mmu_unsync);
  ShadowCounters::Subtract(counters_.shadow.mmu_shadow_pages);
  EXPECT_THAT(AuditFindings(), HasSubstr("INV-13: mmu_shadow_pages is 2"));
  ShadowCounters::Add(counters_.shadow.mmu_shadow_pages);
}

}  // namespace
}  // namespace mmu
