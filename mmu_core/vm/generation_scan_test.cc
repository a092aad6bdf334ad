// Scans of a VM's memory that make the generations of its working set.

#include "mmu_core/vm/jobs/generation_scan.h"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/failing_allocations.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/generation_coverage.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

std::unique_ptr<Vm> MakeVmOf(MmuMode mmu, std::vector<MemslotConfig> memslots) {
  VmConfig config;
  config.mmu = mmu;
  config.memslots = std::move(memslots);
  return MakeVmFrom(config);
}

// Makes one generation.
GenerationTotals Scan(Vm& vm, const GenerationOptions& options = {}) {
  const auto scan = vm.BeginGeneration(options).value();
  while (!scan->done()) EXPECT_TRUE(scan->Next().ok());
  return scan->totals();
}
GenerationCoverage CoverageOf(const GenerationTotals& totals) {
  return GenerationCoverage::FromFlags(totals.coverage);
}

// Ageing does not flush, so a cached translation would hide an access.
void Use(Vm& vm, uint64_t gpa) {
  vm.state().vcpus[0]->tlb().FlushAll();
  Read(vm, gpa);
}

// The ages of the pages from `first` on.
std::vector<GenerationAge> AgesOf(const Vm& vm, uint64_t first,
                                  uint64_t count) {
  return HeatOfBlocks(vm.FindWorkingSet()->View(),
                      GfnRange::Of(Gfn(first), count), Level::k4K);
}

TEST(GenerationScanTest, NothingIsTrackedBeforeTheFirstGeneration) {
  auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
  EXPECT_EQ(vm->FindWorkingSet(), nullptr);
  Scan(*vm);
  ASSERT_NE(vm->FindWorkingSet(), nullptr);
  EXPECT_EQ(vm->FindWorkingSet()->View().newest, 1u);
}

TEST(GenerationScanTest, APageHasTheGenerationThatFoundItYoungLast) {
  auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
  for (const uint64_t page : {0, 1, 2}) Use(*vm, page * kPageSize);
  EXPECT_EQ(Scan(*vm).young_pages, 3u);
  Use(*vm, kPageSize);
  const GenerationTotals second = Scan(*vm);
  EXPECT_EQ(second.young_pages, 1u);
  EXPECT_EQ(second.mapped_pages, 3u);
  EXPECT_THAT(AgesOf(*vm, 0, 4), ElementsAre(1, 0, 1, kNeverYoung));
}

// One scan covers slots with a gap between them, and each GiB in a step.
TEST(GenerationScanTest, AScanGoesThroughAllSlotsPieceByPiece) {
  auto vm = MakeVmOf(MmuMode::kTdp,
                     {Slot(0, kGiB - kMiB, 2 * kMiB), Slot(1, 8 * kGiB, kMiB)});
  Use(*vm, kGiB - kPageSize);
  Use(*vm, kGiB);
  Use(*vm, 8 * kGiB);
  const auto scan = vm->BeginGeneration({}).value();
  EXPECT_EQ(scan->total_pages(), 3 * kMiB / kPageSize);
  std::vector<uint64_t> done;
  while (!scan->done()) {
    EXPECT_TRUE(scan->Next().ok());
    done.push_back(scan->done_pages() * kPageSize / kMiB);
  }
  EXPECT_THAT(done, ElementsAre(1, 2, 3));
  EXPECT_EQ(scan->totals().young_pages, 3u);
}

TEST(GenerationScanTest, AVmWithoutMemoryHasEmptyGenerations) {
  auto vm = MakeVmOf(MmuMode::kTdp, {});
  const auto scan = vm->BeginGeneration({}).value();
  EXPECT_TRUE(scan->done());
  EXPECT_EQ(vm->FindWorkingSet()->View().newest, 1u);
}

TEST(GenerationScanTest, OneScanIsMadeAtATime) {
  auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
  {
    const auto scan = vm->BeginGeneration({}).value();
    const auto other = vm->BeginGeneration({});
    EXPECT_EQ(other.status().code(), absl::StatusCode::kAborted);
    EXPECT_EQ(DetailOf(other.status()).reason, Reason::kGenerationRunning);
  }
  EXPECT_TRUE(vm->BeginGeneration({}).ok());
}

// What it did not reach is young in the next generation.
TEST(GenerationScanTest, AScanThatIsBrokenOffIsIncomplete) {
  auto vm =
      MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB), Slot(1, 8 * kGiB, kMiB)});
  Use(*vm, 0);
  Use(*vm, 8 * kGiB);
  {
    const auto scan = vm->BeginGeneration({}).value();
    EXPECT_TRUE(scan->Next().ok());
  }
  const auto first = vm->FindWorkingSet()->FindGeneration(1);
  ASSERT_TRUE(first.has_value() && first->ended_at_nanos.has_value());
  EXPECT_TRUE(CoverageOf(first->totals).incomplete);
  EXPECT_EQ(first->totals.young_pages, 1u);
  const GenerationTotals second = Scan(*vm);
  EXPECT_FALSE(CoverageOf(second).incomplete);
  EXPECT_EQ(second.young_pages, 1u);
}

// A slot that is deleted during a scan is left out; one that is made later with
// the same id begins anew; one that moves keeps its ages.
TEST(GenerationScanTest, SlotsComeAndGo) {
  auto vm =
      MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB), Slot(1, 8 * kGiB, kMiB)});
  Use(*vm, 0);
  Use(*vm, 8 * kGiB);
  {
    const auto scan = vm->BeginGeneration({}).value();
    EXPECT_TRUE(scan->Next().ok());
    ASSERT_TRUE(vm->DeleteMemslot(1, Undelivered::kDiscard).ok());
    EXPECT_TRUE(scan->Next().ok());
    EXPECT_TRUE(scan->done());
    EXPECT_EQ(scan->totals().young_pages, 1u);
  }
  ASSERT_TRUE(vm->SetMemslot(Slot(1, 8 * kGiB, kMiB)).ok());
  Scan(*vm);
  EXPECT_THAT(AgesOf(*vm, 8 * kGiB / kPageSize, 1), ElementsAre(kNeverYoung));
  ASSERT_TRUE(vm->SetMemslot(Slot(0, 4 * kGiB, kMiB)).ok());
  Scan(*vm);
  EXPECT_THAT(AgesOf(*vm, 4 * kGiB / kPageSize, 2),
              ElementsAre(2, kNeverYoung));
}

// What the scan found in the new slot went to the map of the old one.
TEST(GenerationScanTest, ASlotInThePlaceOfAnotherMakesAGenerationIncomplete) {
  const std::vector<MemslotConfig> slots = {Slot(0, 0, kMiB),
                                            Slot(1, 8 * kGiB, kMiB)};
  for (const bool replaced_before_its_piece : {true, false}) {
    auto vm = MakeVmOf(MmuMode::kTdp, slots);
    const auto scan = vm->BeginGeneration({}).value();
    EXPECT_TRUE(scan->Next().ok());
    const MemslotConfig& slot = slots[replaced_before_its_piece ? 1 : 0];
    ASSERT_TRUE(vm->DeleteMemslot(slot.slot, Undelivered::kDiscard).ok());
    ASSERT_TRUE(vm->SetMemslot(slot).ok());
    EXPECT_TRUE(scan->Next().ok());
    EXPECT_EQ(scan->coverage().incomplete, replaced_before_its_piece);
    EXPECT_EQ(scan->coverage().lost, replaced_before_its_piece);
  }
}

// A move unmaps the slot's pages. If it comes before their piece, the scan does
// not examine them; if it comes after it, it does no harm.
TEST(GenerationScanTest, ASlotThatMovesAwayMakesAGenerationIncomplete) {
  for (const bool moved_before_its_piece : {true, false}) {
    auto vm =
        MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB), Slot(1, 8 * kGiB, kMiB)});
    const auto scan = vm->BeginGeneration({}).value();
    EXPECT_TRUE(scan->Next().ok());
    const uint32_t slot = moved_before_its_piece ? 1 : 0;
    ASSERT_TRUE(vm->SetMemslot(Slot(slot, 16 * kGiB, kMiB)).ok());
    EXPECT_TRUE(scan->Next().ok());
    EXPECT_TRUE(scan->done());
    EXPECT_EQ(scan->coverage().incomplete, moved_before_its_piece);
    EXPECT_FALSE(scan->coverage().lost);
  }
}

// Whichever allocation fails: no generation stays open, no turn is kept, and
// the clears of others are told by the next generation.
TEST(GenerationScanTest, WithoutMemoryAGenerationIsNotBegunOrItEnds) {
  uint64_t not_begun = 0;
  uint64_t broken_off = 0;
  for (uint64_t n = 1;; ++n) {
    auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
    Use(*vm, 0);
    Scan(*vm);
    ASSERT_TRUE(vm->SetMemslot(Slot(1, 8 * kGiB, kMiB)).ok());
    EXPECT_TRUE(
        vm->Age(GfnRange::Of(Gfn(0), 1), AgeMode::kTestAndClear, nullptr).ok());
    const Attempt attempt = FailOneAllocation(n, [&] {
      const auto scan = vm->BeginGeneration({});
      if (!scan.ok()) return scan.status();
      while (!(*scan)->done()) {
        if (absl::Status next = (*scan)->Next(); !next.ok()) return next;
      }
      return absl::OkStatus();
    });
    if (!attempt.failed) {
      EXPECT_TRUE(attempt.status.ok());
      break;
    }
    EXPECT_EQ(DetailOf(attempt.status).reason,
              Reason::kResourceExhaustedMemory);
    const auto set = vm->FindWorkingSet();
    const uint64_t newest = set->View().newest;
    const auto last = set->FindGeneration(newest);
    ASSERT_TRUE(last->ended_at_nanos.has_value());
    EXPECT_EQ(CoverageOf(last->totals).incomplete, newest == 2);
    EXPECT_EQ(CoverageOf(last->totals).lost, newest == 2);
    (newest == 1 ? not_begun : broken_off) += 1;
    EXPECT_EQ(CoverageOf(Scan(*vm)).others_cleared, newest == 1);
  }
  EXPECT_GE(not_begun, 5u);
  EXPECT_GE(broken_off, 1u);
}

TEST(GenerationScanTest, AClearOfSomebodyElseIsSaid) {
  auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
  const GfnRange all = GfnRange::Of(Gfn(0), kMiB / kPageSize);
  const auto age = [&](AgeMode mode) {
    EXPECT_TRUE(vm->Age(all, mode, nullptr).ok());
  };
  EXPECT_FALSE(CoverageOf(Scan(*vm)).others_cleared);
  age(AgeMode::kTest);
  EXPECT_FALSE(CoverageOf(Scan(*vm)).others_cleared);
  age(AgeMode::kTestAndClear);
  EXPECT_TRUE(CoverageOf(Scan(*vm)).others_cleared);
  EXPECT_FALSE(CoverageOf(Scan(*vm)).others_cleared);
  ClearYoung(vm->state(), HostPagesOf(*vm, 0, 0, 1));
  EXPECT_TRUE(CoverageOf(Scan(*vm)).others_cleared);
  EXPECT_FALSE(CoverageOf(Scan(*vm)).others_cleared);
  {
    const auto scan = vm->BeginGeneration({}).value();
    age(AgeMode::kTestAndClear);
    while (!scan->done()) EXPECT_TRUE(scan->Next().ok());
    EXPECT_TRUE(scan->coverage().others_cleared);
  }
}

TEST(GenerationScanTest, AnMmuThatDoesNotAgeFastIsSkippedRefusedOrAsked) {
  auto vm = MakeVmOf(MmuMode::kTdpShadow, {Slot(0, 0, kMiB)});
  Use(*vm, 0);
  const GenerationTotals skipped = Scan(*vm);
  EXPECT_EQ(skipped.mapped_pages, 0u);
  EXPECT_TRUE(CoverageOf(skipped).reach.Of(MmuKind::kShadow).skipped);
  const auto refused = vm->BeginGeneration({.slow = SlowMmus::kRefuse});
  EXPECT_EQ(DetailOf(refused.status()).reason, Reason::kFastAgingUnavailable);
  EXPECT_EQ(vm->FindWorkingSet()->View().newest, 1u) << "none was begun";
  const GenerationTotals asked = Scan(*vm, {.fast_only = FastOnly::kNo});
  EXPECT_EQ(asked.young_pages, 1u);
  EXPECT_EQ(CoverageOf(asked).reach.Of(MmuKind::kShadow).lock,
            AgingLock::kRmap);
}

TEST(GenerationScanTest, WhatIsForgottenBeginsAnew) {
  auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB)});
  Use(*vm, 0);
  Scan(*vm);
  Scan(*vm);
  const auto reader = vm->FindWorkingSet();
  vm->ForgetWorkingSet();
  EXPECT_EQ(vm->FindWorkingSet(), nullptr);
  EXPECT_EQ(reader->View().newest, 2u) << "is forgotten when its readers end";
  Scan(*vm);
  EXPECT_EQ(vm->FindWorkingSet()->View().newest, 1u);
}

// The scan leaves the Accessed bits alone that it did not reach: they belong to
// the generations of the next working set.
TEST(GenerationScanTest, AScanEndsWhenItsWorkingSetIsForgotten) {
  auto vm =
      MakeVmOf(MmuMode::kTdp, {Slot(0, 0, kMiB), Slot(1, 8 * kGiB, kMiB)});
  Use(*vm, 8 * kGiB);
  auto scan = vm->BeginGeneration({}).value();
  EXPECT_TRUE(scan->Next().ok());
  EXPECT_FALSE(scan->forgotten());
  vm->ForgetWorkingSet();
  EXPECT_TRUE(scan->forgotten());
  EXPECT_FALSE(scan->done());
  EXPECT_EQ(DetailOf(vm->BeginGeneration({}).status()).reason,
            Reason::kGenerationRunning)
      << "it may be examining a piece";
  EXPECT_TRUE(scan->Next().ok());
  EXPECT_TRUE(scan->done());
  EXPECT_TRUE(scan->coverage().incomplete);
  EXPECT_EQ(scan->done_pages(), kMiB / kPageSize);
  EXPECT_EQ(vm->FindWorkingSet(), nullptr);
  scan.reset();
  EXPECT_EQ(Scan(*vm).young_pages, 1u);
  EXPECT_EQ(vm->FindWorkingSet()->View().newest, 1u);
}

TEST(GenerationScanTest, CoverageSurvivesItsFlags) {
  GenerationCoverage coverage;
  coverage.reach.Of(MmuKind::kTdp) = {.asked = true};
  coverage.reach.Of(MmuKind::kShadow) = {.asked = true,
                                         .lock = AgingLock::kRmap};
  coverage.reach.Of(MmuKind::kStage2) = {.skipped = true,
                                         .lock = AgingLock::kWrite};
  for (bool GenerationCoverage::*flag :
       {&GenerationCoverage::look_around, &GenerationCoverage::incomplete,
        &GenerationCoverage::lost, &GenerationCoverage::others_cleared}) {
    coverage.*flag = true;
    const auto read = GenerationCoverage::FromFlags(coverage.ToFlags());
    EXPECT_EQ(read.ToFlags(), coverage.ToFlags());
    EXPECT_TRUE(read.*flag);
    EXPECT_EQ(
        read.look_around + read.incomplete + read.lost + read.others_cleared,
        1);
    coverage.*flag = false;
    AgeReach reach = read.reach;
    EXPECT_TRUE(reach.Of(MmuKind::kTdp).asked);
    EXPECT_EQ(reach.Of(MmuKind::kShadow).lock, AgingLock::kRmap);
    EXPECT_TRUE(reach.Of(MmuKind::kStage2).skipped);
    EXPECT_EQ(reach.Of(MmuKind::kStage2).lock, AgingLock::kWrite);
  }
}

// A scan that looks around.
class LookAroundTest : public ::testing::Test {
 protected:
  static constexpr GenerationOptions kLookAround = {.scope =
                                                        ScanScope::kLookAround};
  static constexpr uint64_t kBatches = 16;
  static constexpr uint64_t kPages = kBatches * kLookAroundBatch;

  explicit LookAroundTest(Level level = Level::k4K)
      : vm_(MakeVmOf(MmuMode::kTdp, {SlotOf(level)})) {}

  static MemslotConfig SlotOf(Level level) {
    MemslotConfig slot = Slot(0, 0, kPages * kPageSize);
    slot.host_page_level = level;
    return slot;
  }
  void UseAll() {
    for (uint64_t page = 0; page < kPages; ++page) Use(*vm_, page * kPageSize);
  }

  std::unique_ptr<Vm> vm_;
};

// Covers: AGE-33, AGE-40
TEST_F(LookAroundTest, ABatchIsExaminedIfItsProbedPageIsYoung) {
  UseAll();
  const GenerationTotals all = Scan(*vm_, kLookAround);
  EXPECT_EQ(all.young_pages, kPages);
  EXPECT_TRUE(CoverageOf(all).look_around);
  // One page of each batch is used: nearly no probe meets it.
  for (uint64_t batch = 0; batch < kBatches; ++batch) {
    Use(*vm_, (batch * kLookAroundBatch + batch) * kPageSize);
  }
  const GenerationTotals some = Scan(*vm_, kLookAround);
  EXPECT_LE(some.young_pages, 1u);
  EXPECT_LE(some.mapped_pages, kBatches + kLookAroundBatch);
}

// Each page is probed once in 64 generations, so no access is missed for ever.
TEST_F(LookAroundTest, EachPageHasItsTurn) {
  UseAll();
  Scan(*vm_, kLookAround);
  const uint64_t used = 5;
  Use(*vm_, used * kPageSize);
  uint64_t found = 0;
  for (uint64_t i = 0; i < kLookAroundBatch; ++i) {
    found += Scan(*vm_, kLookAround).young_pages;
  }
  EXPECT_EQ(found, 1u);
}

// The same for the short batches at the ends of slots, whatever their lengths:
// 37 pages are as many as the step from one probed page to the next.
TEST(ShortBatchTest, EachPageHasItsTurn) {
  constexpr GenerationOptions kLookAround = {.scope = ScanScope::kLookAround};
  for (const uint64_t pages : {1, 2, 32, 37, 63}) {
    auto vm = MakeVmOf(MmuMode::kTdp, {Slot(0, 0, pages * kPageSize)});
    for (uint64_t page = 0; page < pages; ++page) Use(*vm, page * kPageSize);
    Scan(*vm);
    const uint64_t used = pages - 1;
    Use(*vm, used * kPageSize);
    uint64_t found = 0;
    for (uint64_t i = 0; i < kLookAroundBatch; ++i) {
      found += Scan(*vm, kLookAround).young_pages;
    }
    EXPECT_EQ(found, 1u) << pages << " pages";
  }
}

class HugeLookAroundTest : public LookAroundTest {
 protected:
  HugeLookAroundTest() : LookAroundTest(Level::k2M) {}
};

// A huge page is found by its first batch; it is young in all of them.
// Covers: AGE-17
TEST_F(HugeLookAroundTest, AHugePageIsYoungAsAWhole) {
  Use(*vm_, kPageSize);
  EXPECT_EQ(Scan(*vm_, kLookAround).young_pages, PagesPer(Level::k2M));
  EXPECT_THAT(AgesOf(*vm_, 0, PagesPer(Level::k2M)), Each(0));
  EXPECT_EQ(Scan(*vm_, kLookAround).young_pages, 0u);
}

// Of an MMU that does not age fast, only probed pages are examined.
TEST(LookAroundInSlowMmuTest, OnlyTheProbedPageIsExamined) {
  constexpr uint64_t kPages = kLookAroundBatch;
  auto vm = MakeVmOf(MmuMode::kTdpShadow, {Slot(0, 0, kPages * kPageSize)});
  for (uint64_t page = 0; page < kPages; ++page) Use(*vm, page * kPageSize);
  const GenerationTotals found =
      Scan(*vm, {.fast_only = FastOnly::kNo, .scope = ScanScope::kLookAround});
  EXPECT_EQ(found.young_pages, 1u);
  EXPECT_EQ(found.mapped_pages, 1u);
  EXPECT_EQ(Scan(*vm, {.fast_only = FastOnly::kNo}).young_pages, kPages - 1);
}

}  // namespace
}  // namespace mmu::testing
