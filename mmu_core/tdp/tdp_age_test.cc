// Accessed bits.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/tdp_mmu.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::mmu::testing::AllMappings;
using ::mmu::testing::AuditFindings;
using ::mmu::testing::FlushesOf;
using ::mmu::testing::kGiB;
using ::mmu::testing::kMiB;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Mapping;
using ::mmu::testing::PagesOf;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::SpteOf;
using ::mmu::testing::Touch;
using ::mmu::testing::Write;
using ::mmu::testing::ZapLeafs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

AgeResult Age(Vm& vm, uint64_t first, uint64_t pages,
              AgeMode mode = AgeMode::kTestAndClear, MmuCost* cost = nullptr) {
  const GfnRange range = GfnRange::Of(Gfn(first), pages);
  AgeResult result = AgeResult::For(range);
  vm.state().tdp.Age(0, range, mode, AgeScan::kWalkedTables, result, cost);
  return result;
}

// Covers: AGE-13, SPTE-30
TEST(TdpAgeTest, TestAndClearTakesTheBitOfWhatWasUsedSince) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(10), 4));
  AgeResult aged = Age(*vm, 0, 100);
  EXPECT_EQ(aged.young_page_count, 4u);
  EXPECT_EQ(aged.old_page_count, 0u);
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(10, 11, 12, 13));
  for (const Mapping& mapping : AllMappings(vm->state())) {
    EXPECT_EQ(mapping.flags, "rwd") << "only A is gone";
  }
  vm->state().vcpus[0]->tlb().FlushAll();
  Read(*vm, 12 * kPageSize);
  aged = Age(*vm, 0, 100);
  EXPECT_EQ(aged.young_page_count, 1u);
  EXPECT_EQ(aged.old_page_count, 3u);
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(12));
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: AGE-13
TEST(TdpAgeTest, TestingChangesNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(10), 4));
  const std::vector<Mapping> before = AllMappings(vm->state());
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Age(*vm, 0, 100, AgeMode::kTest).young_page_count, 4u);
    EXPECT_EQ(AllMappings(vm->state()), before);
  }
}

TEST(TdpAgeTest, BitsCountFromTheRangesFirstPage) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(10), 4));
  EXPECT_THAT(PagesOf(Age(*vm, 11, 2).young), ElementsAre(0, 1));
  EXPECT_THAT(PagesOf(Age(*vm, 0, 20).young), ElementsAre(10, 13))
      << "the others were aged";
}

// Covers: AGE-13, TLB-07, TDP-23
TEST(TdpAgeTest, ItTakesNoLockAndFlushesNobody) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Touch(*vm, GfnRange::Of(Gfn(0), 8));
  const uint64_t flushes = FlushesOf(*vm);
  MmuCost cost;
  {
    // While this thread holds mmu_lock in write mode, Age cannot take it.
    MmuWriteLocked lock(vm->state().mmu_lock, LockOp::kZap);
    EXPECT_EQ(Age(*vm, 0, 8, AgeMode::kTestAndClear, &cost).young_page_count,
              8u);
  }
  EXPECT_EQ(FlushesOf(*vm), flushes);
  EXPECT_EQ(cost.tlb_flush_count, 0);
  EXPECT_GE(cost.sptes_visited_count, 8);
  const LockMetrics metrics = vm->Stats().lock;
  EXPECT_EQ(metrics.at(LockMode::kRead, LockOp::kAge).acquisitions, 0u);
  EXPECT_EQ(metrics.at(LockMode::kWrite, LockOp::kAge).acquisitions, 0u);
}

// Covers: AGE-16
TEST(TdpAgeTest, APageThatIsUsedThroughTheTlbLooksIdle) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  EXPECT_EQ(Age(*vm, 0, 1).young_page_count, 1u);
  Vcpu& vcpu = *vm->state().vcpus[0];
  ASSERT_NE(vcpu.tlb().Lookup(PageNumber(0)), nullptr) << "still cached";
  Write(*vm, 0, 2);
  Read(*vm, 0);
  EXPECT_EQ(Age(*vm, 0, 1).young_page_count, 0u) << "a false negative";
  vcpu.tlb().FlushAll();
  Read(*vm, 0);
  EXPECT_EQ(Age(*vm, 0, 1).young_page_count, 1u);
  EXPECT_EQ(Age(*vm, 0, 1).young_page_count, 0u) << "never a false positive";
  EXPECT_EQ(AuditFindings(*vm), "");
}

// Covers: AGE-17
TEST(TdpAgeTest, AnyPageOfAHugeLeafReportsAndClearsAllOfIt) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB, Level::k2M)});
  Touch(*vm, GfnRange::Of(Gfn(0), 1024));
  AgeResult aged = Age(*vm, 700, 1);
  EXPECT_EQ(aged.young_page_count, 1u) << "of those asked for";
  EXPECT_THAT(PagesOf(aged.young), ElementsAre(0));
  EXPECT_THAT(AllMappings(vm->state()),
              ElementsAre(Mapping{0, Level::k2M, "rwad"},
                          Mapping{512, Level::k2M, "rwd"}));
  EXPECT_EQ(Age(*vm, 512, 512).young_page_count, 0u);
  vm->state().vcpus[0]->tlb().FlushAll();
  Read(*vm, 1000 * kPageSize);
  EXPECT_EQ(Age(*vm, 600, 3).young_page_count, 3u);

  // A whole huge page sets each of its bits, and none beyond.
  aged = Age(*vm, 0, 1024);
  EXPECT_EQ(aged.young_page_count, 512u);
  EXPECT_EQ(aged.old_page_count, 512u);
  const std::vector<uint64_t> young = PagesOf(aged.young);
  ASSERT_EQ(young.size(), 512u);
  EXPECT_EQ(young.front(), 0u);
  EXPECT_EQ(young.back(), 511u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(TdpAgeTest, HugePagesSetTheirBitsWhereverTheRangeCutsThem) {
  auto vm = MakeVm({Slot(0, 0, 8 * kMiB, Level::k2M)});
  for (const uint64_t first : {0, 1, 63, 64, 65, 500, 511}) {
    for (const uint64_t count : {1, 63, 64, 65, 200, 1000}) {
      ZapLeafs(*vm, GfnRange::Of(Gfn(0), 2048));
      Read(*vm, 512 * kPageSize);  // young: 512..1023
      const AgeResult aged = Age(*vm, first, count);
      std::vector<uint64_t> expected;
      for (uint64_t page = 0; page < count; ++page) {
        if (first + page >= 512 && first + page < 1024) {
          expected.push_back(page);
        }
      }
      EXPECT_EQ(PagesOf(aged.young), expected) << first << " + " << count;
      EXPECT_EQ(aged.young_page_count, expected.size());
    }
  }
}

// Covers: AGE-13
TEST(TdpAgeTest, AgingWhilePagesAreZappedReportsWhatItSawAndHarmsNothing) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> young{0};
  std::vector<std::thread> agers;
  for (int i = 0; i < 2; ++i) {
    agers.emplace_back([&] {
      while (!stop.load()) {
        const AgeResult aged = Age(*vm, 0, 600);
        EXPECT_EQ(PagesOf(aged.young).size(), aged.young_page_count);
        young += aged.young_page_count;
      }
    });
  }
  for (int i = 0; i < 200 || young.load() == 0; ++i) {
    Touch(*vm, GfnRange::Of(Gfn(500), 64));
    if (i % 2 == 0) {
      ZapLeafs(*vm, GfnRange::Of(Gfn(500), 32));
    } else {
      vm->state().tdp.FastZapAll(nullptr);
    }
  }
  stop.store(true);
  for (std::thread& ager : agers) ager.join();
  EXPECT_EQ(AuditFindings(*vm), "");
}

TEST(TdpAgeTest, PagesThatNothingMapsAreNeitherYoungNorOld) {
  auto vm = MakeVm({Slot(0, 0, 4 * kMiB)});
  Write(*vm, 0);
  const AgeResult aged = Age(*vm, 1, 1000);
  EXPECT_EQ(aged.young_page_count, 0u);
  EXPECT_EQ(aged.old_page_count, 0u);
  EXPECT_THAT(PagesOf(aged.young), IsEmpty());
}

}  // namespace
}  // namespace mmu
