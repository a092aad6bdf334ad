// Splits that go through memory in the order of its heat.

#include "mmu_core/vm/jobs/split_order.h"

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/jobs/generation_scan.h"
#include "mmu_core/vm/jobs/split_job.h"

namespace mmu::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kBlockPages = PagesPer(Level::k2M);
constexpr uint64_t kBlockBytes = kBlockPages * kPageSize;
constexpr uint64_t kBlocks = 8;

// A VM of eight blocks of 2 MiB, each mapped by a huge leaf.
class SplitOrderTest : public ::testing::Test {
 protected:
  SplitOrderTest() {
    VmConfig config;
    MemslotConfig slot = Slot(0, 0, kBlocks * kBlockBytes);
    slot.host_page_level = Level::k2M;
    config.memslots = {slot};
    vm_ = MakeVmFrom(config);
  }

  void Use(const std::vector<uint64_t>& blocks) {
    for (const uint64_t block : blocks) {
      // A cached translation would hide the access.
      vm_->state().vcpus[0]->tlb().FlushAll();
      Read(*vm_, block * kBlockBytes);
    }
  }
  void MakeGeneration(const GenerationOptions& options = {}) {
    const auto scan = vm_->BeginGeneration(options).value();
    while (!scan->done()) EXPECT_TRUE(scan->Next().ok());
  }
  // Blocks 6 and 7 are never used, 0 to 3 by the first generation, 4 and 5 by
  // the second.
  void MakeHeat() {
    Use({0, 1, 2, 3});
    MakeGeneration();
    Use({4, 5});
    MakeGeneration();
  }

  static GfnRange Blocks(uint64_t first, uint64_t count) {
    return GfnRange::Of(Gfn(first * kBlockPages), count * kBlockPages);
  }
  absl::StatusOr<OrderedRanges> Order(
      SplitOrder order,
      absl::optional<absl::Duration> cold_after = absl::nullopt) {
    return OrderForSplit(vm_->state(), {Blocks(0, kBlocks)}, order, cold_after);
  }

  std::unique_ptr<Vm> vm_;
};

TEST_F(SplitOrderTest, ByAddressNoWorkingSetIsNeeded) {
  EXPECT_THAT(Order(SplitOrder::kAscending)->ranges,
              ElementsAre(Blocks(0, kBlocks)));
  const auto down = OrderForSplit(vm_->state(), {Blocks(0, 2), Blocks(4, 2)},
                                  SplitOrder::kDescending, absl::nullopt);
  EXPECT_THAT(down->ranges, ElementsAre(Blocks(4, 2), Blocks(0, 2)));
}

TEST_F(SplitOrderTest, ByHeatAGenerationIsNeeded) {
  for (const auto& ordered :
       {Order(SplitOrder::kColdestFirst), Order(SplitOrder::kHottestDirtyFirst),
        Order(SplitOrder::kAscending, absl::Seconds(1))}) {
    EXPECT_EQ(DetailOf(ordered.status()).reason, Reason::kNoGeneration);
  }
}

TEST_F(SplitOrderTest, ColdestFirstBeginsWithWhatWasNeverYoung) {
  MakeHeat();
  EXPECT_THAT(Order(SplitOrder::kColdestFirst)->ranges,
              ElementsAre(Blocks(6, 2), Blocks(0, 4), Blocks(4, 2)));
}

// Parts of blocks have the age of their own pages.
TEST_F(SplitOrderTest, ARangeIsCutAtBlocks) {
  MakeHeat();
  const GfnRange range = {Gfn(kBlockPages / 2), Gfn(kBlockPages * 13 / 2)};
  const auto ordered = OrderForSplit(vm_->state(), {range},
                                     SplitOrder::kColdestFirst, absl::nullopt);
  EXPECT_THAT(
      ordered->ranges,
      ElementsAre(GfnRange{Gfn(6 * kBlockPages), range.end},
                  GfnRange{range.start, Gfn(4 * kBlockPages)}, Blocks(4, 2)));
}

// What was delivered comes after all that was not, however hot it is.
TEST_F(SplitOrderTest, HottestDirtyFirstBeginsWithUndeliveredPages) {
  MakeHeat();
  EXPECT_THAT(Order(SplitOrder::kHottestDirtyFirst)->ranges,
              ElementsAre(Blocks(4, 2), Blocks(0, 4), Blocks(6, 2)))
      << "without a log";
  ASSERT_TRUE(vm_->StartDirtyLog(TestStart(DirtyLogConfig()), nullptr).ok());
  for (const uint64_t block : {1, 5, 7}) {
    ASSERT_EQ(Write(*vm_, block * kBlockBytes, 1), AccessOutcome::kDone);
  }
  EXPECT_THAT(
      Order(SplitOrder::kHottestDirtyFirst)->ranges,
      ElementsAre(Blocks(5, 1), Blocks(1, 1), Blocks(7, 1), Blocks(4, 1),
                  Blocks(0, 1), Blocks(2, 2), Blocks(6, 1)));
}

TEST_F(SplitOrderTest, ColdBlocksAreLeftOut) {
  MakeHeat();
  const auto none = Order(SplitOrder::kAscending, absl::InfiniteDuration() / 4);
  EXPECT_EQ(none->cold_pages, 0u);
  EXPECT_THAT(none->ranges,
              ElementsAre(Blocks(0, 4), Blocks(4, 2), Blocks(6, 2)));
  const auto some = Order(SplitOrder::kAscending, absl::ZeroDuration());
  EXPECT_EQ(some->cold_pages, 6 * kBlockPages);
  EXPECT_THAT(some->ranges, ElementsAre(Blocks(4, 2)))
      << "no generation found these blocks old";
  MakeGeneration();
  const auto all = Order(SplitOrder::kAscending, absl::ZeroDuration());
  EXPECT_EQ(all->cold_pages, kBlocks * kBlockPages);
  EXPECT_THAT(all->ranges, IsEmpty());
  EXPECT_EQ(Order(SplitOrder::kAscending, absl::Hours(1))->cold_pages, 0u)
      << "nothing is known of that time";
}

// Memory is cold only if a generation has examined all of it and found it old.
TEST_F(SplitOrderTest, WhatWasNotExaminedIsNotCold) {
  const auto cold_blocks = [&] {
    return Order(SplitOrder::kAscending, absl::ZeroDuration())->cold_pages /
           kBlockPages;
  };
  {
    const auto open = vm_->BeginGeneration({}).value();
    EXPECT_EQ(cold_blocks(), 0u) << "the scan goes on";
  }
  EXPECT_EQ(cold_blocks(), 0u) << "the scan was broken off";
  MakeGeneration({.scope = ScanScope::kLookAround});
  EXPECT_EQ(cold_blocks(), 0u) << "the scan looked around";
  MakeGeneration();
  EXPECT_EQ(cold_blocks(), kBlocks);
  Use({0});
  MakeGeneration();
  EXPECT_EQ(cold_blocks(), kBlocks - 1);
  // Block 0 was young in the last whole generation. Whether it is old now, no
  // other one knows.
  MakeGeneration({.scope = ScanScope::kLookAround});
  EXPECT_EQ(cold_blocks(), kBlocks - 1);
}

TEST_F(SplitOrderTest, WhatWasAskedOfNoMmuIsNotCold) {
  VmConfig config;
  config.mmu = MmuMode::kTdpShadow;
  config.memslots = {Slot(0, 0, kBlocks * kBlockBytes)};
  vm_ = MakeVmFrom(config);
  MakeGeneration({.slow = SlowMmus::kSkip});
  EXPECT_EQ(Order(SplitOrder::kAscending, absl::ZeroDuration())->cold_pages,
            0u);
  MakeGeneration({.fast_only = FastOnly::kNo});
  EXPECT_EQ(Order(SplitOrder::kAscending, absl::ZeroDuration())->cold_pages,
            kBlocks * kBlockPages);
}

// A slot that came after the last generation, also in the place of another.
TEST_F(SplitOrderTest, MemoryThatNoGenerationHasSeenIsNotCold) {
  MakeGeneration();
  const GfnRange added = Blocks(2 * kBlocks, 1);
  const auto cold_pages = [&](GfnRange range) {
    return OrderForSplit(vm_->state(), {range}, SplitOrder::kAscending,
                         absl::ZeroDuration())
        ->cold_pages;
  };
  ASSERT_TRUE(
      vm_->SetMemslot(Slot(1, added.start.value() * kPageSize, kBlockBytes))
          .ok());
  EXPECT_EQ(cold_pages(added), 0u);
  MakeGeneration();
  EXPECT_EQ(cold_pages(added), kBlockPages);
  ASSERT_TRUE(vm_->DeleteMemslot(0, Undelivered::kDiscard).ok());
  ASSERT_TRUE(vm_->SetMemslot(Slot(0, 0, kBlocks * kBlockBytes)).ok());
  EXPECT_EQ(cold_pages(Blocks(0, kBlocks)), 0u);
  // Its first generation was broken off: those before it say nothing of it.
  { const auto broken_off = vm_->BeginGeneration({}).value(); }
  EXPECT_EQ(cold_pages(Blocks(0, kBlocks)), 0u);
  EXPECT_EQ(cold_pages(added), kBlockPages);
  // The same for one that has moved.
  const GfnRange moved = Blocks(4 * kBlocks, 1);
  ASSERT_TRUE(
      vm_->SetMemslot(Slot(1, moved.start.value() * kPageSize, kBlockBytes))
          .ok());
  { const auto broken_off = vm_->BeginGeneration({}).value(); }
  EXPECT_EQ(cold_pages(moved), 0u);
  MakeGeneration();
  EXPECT_EQ(cold_pages(moved), kBlockPages);
}

TEST_F(SplitOrderTest, AJobLeavesColdBlocksHuge) {
  Use({0, 1, 2, 3, 4, 5, 6, 7});
  MakeGeneration();
  MakeGeneration();
  SplitRequest request;
  request.skip_if_cold_after = absl::ZeroDuration();
  const auto cold = vm_->MakeSplitJob(request).value();
  ASSERT_TRUE(cold->Run().ok());
  EXPECT_EQ(cold->Progress().cold_bytes,
            static_cast<int64_t>(kBlocks * kBlockBytes));
  EXPECT_EQ(cold->Progress().total_bytes, 0);
  EXPECT_EQ(vm_->MappedPages(Level::k2M), kBlocks);
  request.skip_if_cold_after = absl::nullopt;
  request.order = SplitOrder::kColdestFirst;
  const auto all = vm_->MakeSplitJob(request).value();
  ASSERT_TRUE(all->Run().ok());
  EXPECT_EQ(all->Progress().done_bytes, all->Progress().total_bytes);
  EXPECT_EQ(vm_->MappedPages(Level::k2M), 0u);
}

}  // namespace
}  // namespace mmu::testing
