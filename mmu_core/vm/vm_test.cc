#include "mmu_core/vm/vm.h"

#include <cerrno>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/testing/vm_builder.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVm;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::ReadValue;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(VmTest, WrittenValuesAreReadBackOverEveryPageSize) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k4K),
                    Slot(1, kGiB, 8 * kMiB, Level::k2M),
                    Slot(2, 2 * kGiB, kGiB, Level::k1G)});
  for (const uint64_t gpa : {uint64_t{0x1008}, kGiB + 0x5000, 2 * kGiB + 16}) {
    EXPECT_EQ(Write(*vm, gpa, gpa + 7), AccessOutcome::kDone);
    EXPECT_EQ(ReadValue(*vm, gpa), gpa + 7);
  }
  const VmStatsSnapshot stats = vm->Stats();
  EXPECT_EQ(stats.pages_4k, 1u);
  EXPECT_EQ(stats.pages_2m, 1u);
  EXPECT_EQ(stats.pages_1g, 1u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(VmTest, ASealedPageIsClearedOnceAndFaultsAgain) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  ASSERT_TRUE(vm->StartDirtyLog({}, nullptr).ok());
  EXPECT_THAT(SealAndList(*vm, 0), IsEmpty());

  Write(*vm, 5 * kPageSize);
  Write(*vm, 700 * kPageSize);
  uint64_t epoch = 0;
  EXPECT_THAT(SealAndList(*vm, 0, &epoch), ElementsAre(5, 700));

  MmuCost cost;
  const auto mask = MaskOf(1024, {5, 700, 701});
  auto cleared = vm->ClearDirtyLog(0, epoch, 0, 1024, mask, &cost);
  ASSERT_TRUE(cleared.ok()) << cleared.status();
  EXPECT_EQ(cleared->cleared_page_count, 2u);
  EXPECT_EQ(cleared->already_clean_page_count, 1u);
  EXPECT_EQ(cost.tlb_flush_count, 1);

  // Stale translations are gone: the write faults and marks.
  Write(*vm, 700 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ElementsAre(700));
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(VmTest, TwoVcpusRunAPatternWhileItsPagesAreHarvested) {
  auto vm = MakeVm({Slot(0, 0, 64 * kMiB, Level::k2M)}, 2);
  PatternSpec spec;
  spec.kind = PatternSpec::Kind::kUniform;
  spec.write_fraction = 0.5;
  spec.access_count = 200000;
  WorkloadOptions options;
  for (int i = 0; i < 2; ++i) {
    options.sources.push_back(MakePattern(spec, vm->GuestSpace(), i, 2));
  }
  ASSERT_TRUE(vm->StartDirtyLog({}, nullptr).ok());
  ASSERT_TRUE(vm->StartWorkload(std::move(options)).ok());
  uint64_t harvested = 0;
  while (!vm->WaitWorkload(absl::Milliseconds(2))) {
    uint64_t epoch = 0;
    const auto pages = SealAndList(*vm, 0, &epoch);
    harvested += pages.size();
    const auto mask = MaskOf(16384, pages);
    ASSERT_TRUE(vm->ClearDirtyLog(0, epoch, 0, 16384, mask, nullptr).ok());
  }
  EXPECT_EQ(AuditFindings(*vm), "");
  const auto progress = vm->Workload();
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress->state, WorkloadProgress::State::kDone);
  EXPECT_EQ(progress->stats.accesses, 400000u);
  EXPECT_GT(harvested, 0u);
}

}  // namespace
}  // namespace mmu
