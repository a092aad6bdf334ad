// Dirty logging of an L2 guest: its writes are logged for the right page of L1.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/page_tables.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"
#include "tests/selftests/paging_guest.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::MaskOf;
using ::mmu::testing::PagingGuest;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint64_t kMemory = 16 << 20;

std::unique_ptr<Vm> MakeGuest(MmuMode mode, EntryFormat format) {
  VmConfig config;
  config.mmu = mode;
  config.format = format;
  config.memslots = {Slot(0, 0, kMemory)};
  return MakeVmFrom(config);
}

// Seals the log, reads it and clears all its pages.
std::vector<uint64_t> TakeLog(Vm& vm) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> dirty = SealAndList(vm, 0, &epoch);
  EXPECT_TRUE(ClearAndDeliver(vm, 0, epoch, 0, kMemory / kPageSize,
                              MaskOf(kMemory / kPageSize, dirty), nullptr)
                  .ok());
  EXPECT_EQ(AuditFindings(vm), "");
  return dirty;
}

struct Tables {
  std::string name;
  GuestTables tables;
  bool ad_bits;
};

class NestedDirtyLogTest : public ::testing::TestWithParam<Tables> {
 protected:
  NestedDirtyLogTest()
      : vm_(MakeGuest(MmuMode::kNested, GetParam().tables == GuestTables::kEpt
                                            ? EntryFormat::kEpt
                                            : EntryFormat::kNpt)),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        l1_(cpu_, vm_->GuestSpace(),
            {.tables = GetParam().tables, .ad_bits = GetParam().ad_bits}) {
    EXPECT_TRUE(l1_.Boot().ok());
  }

  void Do(AccessKind kind, uint64_t page) {
    uint64_t word = 1;
    ASSERT_TRUE(l1_.Access(ToGpa(Gfn(page)), kind, &word).ok());
  }
  void Read(uint64_t page) { Do(AccessKind::kRead, page); }
  void Write(uint64_t page) { Do(AccessKind::kWrite, page); }
  // The page of L1 that L2's `page` maps to.
  uint64_t FrameOf(uint64_t page) {
    const absl::StatusOr<Gfn> frame = l1_.FrameOf(ToGpa(Gfn(page)));
    EXPECT_TRUE(frame.ok());
    return frame.value_or(Gfn(0)).value();
  }
  void StartLog() {
    ASSERT_TRUE(testing::StartLog(*vm_, {}, nullptr).ok());
    TakeLog(*vm_);
  }

  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Hypervisor l1_;
};

INSTANTIATE_TEST_SUITE_P(
    Kinds, NestedDirtyLogTest,
    ::testing::Values(Tables{"Ept", GuestTables::kEpt, true},
                      Tables{"EptWithoutAccessedDirty", GuestTables::kEpt,
                             false},
                      Tables{"Npt", GuestTables::kNpt, true}),
    [](const auto& row) { return row.param.name; });

// Covers: TST-10, SHD-60
TEST_P(NestedDirtyLogTest, WritesOfL2AppearAtThePageOfL1) {
  for (uint64_t page = 0; page < 4; ++page) Write(page);
  ASSERT_TRUE(l1_.Alias(ToGpa(Gfn(1)), ToGpa(Gfn(600))).ok());
  Write(600);
  StartLog();
  Write(2);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(2)));
  Write(1);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(1)));
  Write(600);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(1)))
      << "another address of the same page";
  // Both mappings are write-protected again, no matter which one was written
  // through.
  Write(1);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(1)));
  EXPECT_THAT(TakeLog(*vm_), IsEmpty());
}

// Covers: TST-10
TEST_P(NestedDirtyLogTest, AReadOfAPageThatMayBeWrittenCountsOnce) {
  Write(1);
  StartLog();
  Read(1);
  EXPECT_THAT(TakeLog(*vm_), IsEmpty()) << "no fault";
  ZapGfnRange(vm_->state(), 0, GfnRange::Of(Gfn(FrameOf(1)), 1));
  Read(1);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(1)));
  Read(1);
  EXPECT_THAT(TakeLog(*vm_), IsEmpty()) << "it is only write-protected";
  Write(1);
  EXPECT_THAT(TakeLog(*vm_), ElementsAre(FrameOf(1)));
}

// A read must not make a page writable while the Dirty bit of L1's entry is
// clear.
// Covers: TST-10
TEST_P(NestedDirtyLogTest, AReadOfAPageThatIsCleanForL1IsNoWrite) {
  if (!GetParam().ad_bits) GTEST_SKIP() << "L1 has no Dirty bits";
  Read(1);
  StartLog();
  ZapGfnRange(vm_->state(), 0, GfnRange::Of(Gfn(FrameOf(1)), 1));
  Read(1);
  EXPECT_THAT(TakeLog(*vm_), IsEmpty());
  Write(1);
  EXPECT_THAT(TakeLog(*vm_), Contains(FrameOf(1)));
}

// The log has the pages that L1 writes and the tables in which the processor
// sets bits.
// Covers: TST-10
TEST_P(NestedDirtyLogTest, TablesOfL1AreDirtyWhenTheyAreWritten) {
  Write(0);
  StartLog();
  Write(1);  // L1 maps it: new zeros and a new entry
  const std::vector<uint64_t> dirty = TakeLog(*vm_);
  EXPECT_THAT(dirty, Contains(FrameOf(1)));
  EXPECT_THAT(dirty, Not(Contains(FrameOf(0))));
  EXPECT_GE(dirty.size(), 2u);
}

// L1 without EPT or NPT maps its guest's pages at addresses of its own page
// tables.
// Covers: TST-10
TEST(ShadowDirtyLogTest, WritesAppearAtThePageWhateverTheirAddress) {
  auto vm = MakeGuest(MmuMode::kShadow, EntryFormat::kNpt);
  PagingGuest guest(*vm);
  const Gfn page = guest.NewPage();
  const Gva gvas[] = {Gva(0x40'0000), Gva(0x7fff'0000'0000)};
  for (const Gva gva : gvas) {
    guest.Map(gva, page, gpte::kPresent | gpte::kWrite | gpte::kUser);
    ASSERT_FALSE(guest.Write(gva).has_value());
  }
  ASSERT_TRUE(StartLog(*vm, {}, nullptr).ok());
  TakeLog(*vm);
  for (int pass = 0; pass < 2; ++pass) {
    for (const Gva gva : gvas) {
      ASSERT_FALSE(guest.Write(gva).has_value());
      EXPECT_THAT(TakeLog(*vm), ElementsAre(page.value()));
      ASSERT_FALSE(guest.Read(gva).has_value());
      EXPECT_THAT(TakeLog(*vm), IsEmpty());
    }
  }
}

}  // namespace
}  // namespace mmu
