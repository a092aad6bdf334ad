// Clears of the dirty log: the rules for their ranges, and the pages that they
// split and protect.

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/dirty_log_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/logging/kvm_dirty_log.h"
#include "mmu_core/vm/slots/region_hooks.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::ClearAndDeliver;
using ::mmu::testing::ErrorOf;
using ::mmu::testing::ErrorText;
using ::mmu::testing::kAllSet;
using ::mmu::testing::kAllSetSplit;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::kPages2M;
using ::mmu::testing::kPlain;
using ::mmu::testing::LevelOf;
using ::mmu::testing::LockTrace;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::MaskOf;
using ::mmu::testing::Read;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::StartLog;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::testing::ElementsAre;
using ::testing::SizeIs;

struct RangeCase {
  uint64_t slot_pages;
  uint64_t first_page;
  uint64_t page_count;
  size_t words;
  Reason reason;  // kNone: the clear succeeds
  std::string field;
};

// Covers: DL-20, DL-21, DL-22, DL-23
TEST(ClearRangeTest, FollowsTheRulesOfSixtyFourPages) {
  const std::vector<RangeCase> cases = {
      {100, 0, 100, 2, Reason::kNone, ""},
      {100, 64, 36, 1, Reason::kNone, ""},
      {100, 0, 64, 1, Reason::kNone, ""},
      {100, 0, 36, 1, Reason::kUnalignedClear, "page_count"},
      {100, 1, 64, 1, Reason::kUnalignedClear, "first_page"},
      {100, 63, 0, 0, Reason::kUnalignedClear, "first_page"},
      {100, 64, 64, 1, Reason::kGpaOutOfRange, "first_page"},
      {100, 128, 0, 0, Reason::kGpaOutOfRange, "first_page"},
      {100, 0, 101, 2, Reason::kGpaOutOfRange, "first_page"},
      {128, 128, 0, 0, Reason::kNone, ""},
      {128, 0, 0, 0, Reason::kNone, ""},
      {128, 64, ~uint64_t{0}, 1, Reason::kGpaOutOfRange, "first_page"},
      {128, ~uint64_t{63}, 64, 1, Reason::kGpaOutOfRange, "first_page"},
      {128, 0, 128, 1, Reason::kInvalidBitmap, "mask"},
      {128, 0, 128, 3, Reason::kInvalidBitmap, "mask"},
      {128, 0, 0, 1, Reason::kInvalidBitmap, "mask"},
  };
  for (const RangeCase& c : cases) {
    SCOPED_TRACE(::testing::Message() << c.slot_pages << " pages: "
                                      << c.first_page << "+" << c.page_count);
    auto vm = MakeVm({Slot(0, 0, c.slot_pages * kPageSize)});
    ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
    Touch(*vm, GfnRange::Of(Gfn(0), c.slot_pages));
    uint64_t epoch = 0;
    const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
    const std::vector<uint64_t> mask(c.words, ~uint64_t{0});
    const absl::StatusOr<ClearResult> cleared = ClearAndDeliver(
        *vm, 0, epoch, c.first_page, c.page_count, mask, nullptr);
    if (c.reason == Reason::kNone) {
      ASSERT_TRUE(cleared.ok()) << cleared.status();
      EXPECT_EQ(cleared->cleared_page_count, c.page_count);
    } else {
      EXPECT_EQ(ErrorOf(cleared.status()),
                ErrorText(c.reason == Reason::kGpaOutOfRange
                              ? absl::StatusCode::kOutOfRange
                              : absl::StatusCode::kInvalidArgument,
                          c.reason, c.field, EINVAL));
      EXPECT_EQ(SealAndList(*vm, 0), dirty);
    }
  }
}

// Covers: DL-20
TEST(ClearRangeTest, AnUnalignedStartIsSeenBeforeTheMissingSlot) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm).ok());
  EXPECT_EQ(ErrorOf(ClearAndDeliver(*vm, 77, 1, 5, 64, {}, nullptr).status()),
            ErrorText(absl::StatusCode::kInvalidArgument,
                      Reason::kUnalignedClear, "first_page", EINVAL));
  EXPECT_EQ(ErrorOf(ClearBitmap(vm->state(), 77, 5, 64, {}, nullptr).status()),
            ErrorText(absl::StatusCode::kInvalidArgument,
                      Reason::kUnalignedClear, "first_page", EINVAL));
}

// Covers: DL-23
TEST(ClearRangeTest, BitZeroOfTheMaskIsTheFirstPageOfTheRange) {
  auto vm = MakeVm({Slot(0, kGiB, 4 * kMiB)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Touch(*vm, GfnRange::Of(Gfn(kGiB >> kPageShift), 200));
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 128, 64, MaskOf(64, {3}), nullptr).ok());
  const std::vector<uint64_t> left = SealAndList(*vm, 0);
  EXPECT_THAT(left, SizeIs(199));
  EXPECT_THAT(left, ::testing::Not(::testing::Contains(131)));
}

// Covers: DL-07, DL-26, DL-15
TEST(ClearSplitTest, ClearingOnePageSplitsItsHugePageAndNoOther) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  ASSERT_TRUE(StartLog(*vm, kAllSetSplit, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const auto cleared =
      ClearAndDeliver(*vm, 0, epoch, 64, 64, MaskOf(64, {9}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->split_2m_count, 1u);
  EXPECT_EQ(cleared->split_1g_count, 0u);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(600)), Level::k2M);
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(600)).IsWritable());
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  EXPECT_FALSE(SpteOf(vm->state(), Gfn(73)).IsWritable());
  EXPECT_TRUE(SpteOf(vm->state(), Gfn(74)).IsWritable()) << "still dirty";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-26
TEST(ClearSplitTest, AOneGigabytePageIsSplitAlongThePathOnly) {
  auto vm = MakeVm({Slot(0, 0, kGiB, Level::k1G)});
  Write(*vm, 0);
  ASSERT_EQ(vm->Stats().pages_1g, 1u);
  ASSERT_TRUE(StartLog(*vm, kAllSetSplit, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const auto cleared =
      ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {0}), nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->split_1g_count, 1u);
  EXPECT_EQ(cleared->split_2m_count, 1u);
  EXPECT_EQ(vm->Stats().pages_1g, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 511u);
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: DL-07, DL-15, TLB-06
TEST(ClearSplitTest, WithoutSplittingTheHugePageIsProtectedForGood) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  ASSERT_TRUE(StartLog(*vm, kAllSet, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  MmuCost cost;
  ASSERT_TRUE(
      ClearAndDeliver(*vm, 0, epoch, 0, 64, MaskOf(64, {5}), &cost).ok());
  // The page has neither W nor MMU-writable ("r"), so the fast fault leaves it.
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rad"}));
  // One flush for the lost MMU-writable bit comes before the lock is dropped.
  // One for the small pages comes afterwards.
  EXPECT_EQ(cost.tlb_flush_count, 2);
  Read(*vm, 6 * kPageSize);
  EXPECT_EQ(LevelOf(vm->state(), Gfn(0)), Level::k2M);
  Write(*vm, 6 * kPageSize);
  EXPECT_EQ(vm->VcpuStats()[0].pf_fast, 0u);
  EXPECT_EQ(vm->Stats().pages_4k, kPages2M);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kFault), 1u);
  EXPECT_EQ(vm->Stats().Splits(Level::k2M, SplitTrigger::kClear), 0u);
  Write(*vm, 5 * kPageSize);
  EXPECT_THAT(SealAndList(*vm, 0), ::testing::Contains(5));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// The slot begins 32 pages below a 2 MiB boundary, in the guest and in the
// host. So some words of its bitmap lie across the boundary of two huge pages.
// Covers: DL-15
TEST(ClearSplitTest, AWordAcrossTwoHugePagesProtectsBoth) {
  auto vm = MakeVm({});
  VmState& state = vm->state();
  const auto backing = state.memory.Allocate({.kind = BackingKind::kAnonymous,
                                              .size_bytes = 16 * kMiB,
                                              .host_page_level = Level::k2M});
  ASSERT_TRUE(backing.ok());
  constexpr uint64_t kOffset = 2 * kMiB - 32 * kPageSize;
  RegionRequest request;
  request.gpa = Gpa(kOffset);
  request.size_bytes = 8 * kMiB;
  request.userspace_addr = (*backing)->hva() + kOffset;
  request.backing = *backing;
  {
    MutexLock lock(state.slots.slots_lock);
    RegionHooks hooks(state, nullptr);
    ASSERT_TRUE(state.slots.SetRegion(request, hooks).ok());
  }
  Write(*vm, ToGpa(Gfn(1000)).value());
  Write(*vm, ToGpa(Gfn(1040)).value());
  ASSERT_EQ(vm->Stats().pages_2m, 2u);
  ASSERT_TRUE(StartLog(*vm, kAllSet, nullptr).ok());
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> both = {1000 - 480, 1040 - 480};
  ASSERT_EQ(both[0] / 64, both[1] / 64) << "one word";
  Vcpu& vcpu = *state.vcpus[0];
  const auto is_cached = [&vcpu](uint64_t page) {
    return vcpu.tlb().Lookup(PageNumber(page)) != nullptr;
  };
  ASSERT_TRUE(is_cached(1000) && is_cached(1040));
  int looks = 0;
  {
    // Before the clear flushes for what it protected, it has flushed for what
    // is not MMU-writable any more.
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kProtectToFlush) return;
      ++looks;
      vcpu.HandleRequests();
      EXPECT_FALSE(is_cached(1000));
      EXPECT_FALSE(is_cached(1040));
    });
    ASSERT_TRUE(
        ClearAndDeliver(*vm, 0, epoch, 0, 1024, MaskOf(1024, both), nullptr)
            .ok());
  }
  EXPECT_EQ(looks, 1);
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{512, Level::k2M, "rad"},
                          Mapping{1024, Level::k2M, "rad"}));
}

// Covers: DL-16
TEST(ClearSplitTest, WithoutInitiallySetAClearLeavesHugePagesAlone) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Write(*vm, 0);
  Write(*vm, 2 * kMiB);
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 5 * kPageSize);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> all(16, ~uint64_t{0});
  const auto cleared = ClearAndDeliver(*vm, 0, epoch, 0, 1024, all, nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_EQ(cleared->split_2m_count, 0u);
  EXPECT_EQ(vm->Stats().pages_2m, 1u);
}

TEST(ClearResultTest, BitsPastTheEndOfTheSlotAreNotCounted) {
  auto vm = MakeVm({Slot(0, 0, 10 * kPageSize)});
  ASSERT_TRUE(StartLog(*vm, kPlain, nullptr).ok());
  Write(*vm, 0x3000);
  uint64_t epoch = 0;
  SealAndList(*vm, 0, &epoch);
  const std::vector<uint64_t> all = {~uint64_t{0}};
  const auto cleared = ClearAndDeliver(*vm, 0, epoch, 0, 10, all, nullptr);
  ASSERT_TRUE(cleared.ok());
  EXPECT_EQ(cleared->cleared_page_count, 1u);
  EXPECT_EQ(cleared->already_clean_page_count, 9u);
}

}  // namespace
}  // namespace mmu
