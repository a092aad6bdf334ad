// Ageing stage-2 leafs without mmu_lock, beside threads that change them.

#include "mmu_core/stage2/stage2_age.h"

#include <functional>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stage2/stage2_split.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/stage2_world.h"

namespace mmu {
namespace {

using ::mmu::testing::LockTrace;
using ::mmu::testing::S2Mapping;
using ::mmu::testing::Stage2TestCpu;
using ::mmu::testing::Stage2World;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// One block, to which the guest has written. The hardware sets AF.
template <TableGeometry G>
class Stage2AgeTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kPages = PagesPer<G>(Level{2});
  static constexpr uint64_t kChunk = BytesPer<G>(Level{2});

  Stage2AgeTest()
      : world_(
            {.pages = kPages,
             .hardware_access_flag = Stage2Options::HardwareAccessFlag::kYes}),
        cpu_(world_) {
    cpu_.Access(world_.At(0), AccessKind::kWrite);
    constexpr int kTables = static_cast<int>(TablesForSplit<G>(kChunk));
    EXPECT_TRUE(split_tables_.TryTopUp(kTables, kTables));
  }

  AgeResult Age(AgeMode mode = AgeMode::kTestAndClear) {
    AgeResult result = AgeResult::For(world_.slot().range());
    RcuReadGuard rcu;
    AgeStage2Lockless(world_.state(), world_.slot().range(), mode, result,
                      nullptr);
    return result;
  }
  // Ages. Between the look at the block and the change to it comes `between`,
  // in another thread.
  AgeResult AgeAround(const std::function<void()>& between) {
    bool done = false;
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point != HookPoint::kEntryToAnd || done) return;
      done = true;
      std::thread(between).join();
    });
    const AgeResult result = Age();
    EXPECT_EQ(trace.CountOf(HookPoint::kEntryToAnd), 1);
    EXPECT_EQ(trace.Modes(), "none");
    return result;
  }
  void Split() {
    MmuWriteLocked lock(world_.lock(), LockOp::kSplit);
    const SplitOutcome split = SplitStage2(
        world_.state(), lock, world_.slot().range(),
        {.chunk_bytes = kChunk, .limit = {}}, split_tables_, nullptr);
    EXPECT_EQ(split.split_2m_count, 1);
  }
  // The guest can use all of the memory.
  void ExpectUsable() {
    for (uint64_t page = 0; page < kPages; page += kGfnsPerGranule<G>) {
      ASSERT_EQ(cpu_.Access(world_.At(page), AccessKind::kWrite),
                Stage2TestCpu<G>::Result::kDone);
    }
  }

  Stage2World<G> world_;
  Stage2TestCpu<G> cpu_;
  S2Cache<G> split_tables_{S2Pool<G>::Process()};
};

using Granules = ::testing::Types<Arm4K, Arm16K, Arm64K>;
TYPED_TEST_SUITE(Stage2AgeTest, Granules);

TYPED_TEST(Stage2AgeTest, ABlockIsAgedAsAWholeAndWithoutALock) {
  EXPECT_EQ(this->Age(AgeMode::kTest).young_page_count, this->kPages);
  EXPECT_THAT(this->world_.Mappings(), ElementsAre(S2Mapping{0, 2, "rwxa"}));
  EXPECT_EQ(this->AgeAround([] {}).young_page_count, this->kPages);
  EXPECT_THAT(this->world_.Mappings(), ElementsAre(S2Mapping{0, 2, "rwx"}));
  const AgeResult again = this->Age();
  EXPECT_EQ(again.young_page_count, 0u);
  EXPECT_EQ(again.old_page_count, this->kPages);
}

//   1. ageing finds the block young
//   2. the host takes the memory away
//   3. ageing clears AF: the entry stays empty
TYPED_TEST(Stage2AgeTest, WhatIsUnmappedMeanwhileStaysUnmapped) {
  const AgeResult aged = this->AgeAround(
      [this] { this->world_.Unmap(this->world_.slot().range()); });
  EXPECT_EQ(aged.young_page_count, this->kPages);
  EXPECT_THAT(this->world_.Mappings(), IsEmpty());
  EXPECT_EQ(this->world_.counters().Tables(), 0u);
}

//   1. ageing finds the block young
//   2. a split puts a table in its place
//   3. ageing clears AF: the table stays, and its pages are young (ARM-25)
TYPED_TEST(Stage2AgeTest, WhatIsSplitMeanwhileStaysMapped) {
  const AgeResult aged = this->AgeAround([this] { this->Split(); });
  EXPECT_EQ(aged.young_page_count, this->kPages);
  EXPECT_THAT(this->world_.Mappings(), SizeIs(TypeParam::kEntriesPerTable));
  EXPECT_THAT(this->world_.Mappings(), Each(Field(&S2Mapping::rights, "rwxa")));
  this->ExpectUsable();
}

//   1. ageing finds the block young
//   2. the host takes the memory away, and a fault maps it again
//   3. ageing clears AF: in the root, where the new block has the entry of the
//      old one, it looks old until its next access; below the root, ageing has
//      cleared a bit of the table that was taken out
TYPED_TEST(Stage2AgeTest, WhatIsMappedAgainMeanwhileLosesAtMostItsAge) {
  const bool in_root = this->world_.counters().Tables() == 0;
  this->AgeAround([this] {
    this->world_.Unmap(this->world_.slot().range());
    this->world_.Fault(this->world_.At(0), AccessKind::kWrite);
  });
  EXPECT_THAT(this->world_.Mappings(),
              ElementsAre(S2Mapping{0, 2, in_root ? "rwx" : "rwxa"}));
  this->ExpectUsable();
  EXPECT_THAT(this->world_.Mappings(), ElementsAre(S2Mapping{0, 2, "rwxa"}));
}

//   1. a split breaks the block
//   2. ageing finds a locked entry: neither young nor old
//   3. the split makes its table
TYPED_TEST(Stage2AgeTest, ABrokenBlockIsLeftAlone) {
  AgeResult aged;
  {
    LockTrace trace([&](const LockTrace::Event& event) {
      if (event.point == HookPoint::kTlbiToMake) aged = this->Age();
    });
    this->Split();
  }
  EXPECT_THAT(aged.young, SizeIs(this->kPages / 64));
  EXPECT_EQ(aged.young_page_count + aged.old_page_count, 0u);
  EXPECT_THAT(this->world_.Mappings(), Each(Field(&S2Mapping::rights, "rwxa")));
  this->ExpectUsable();
}

}  // namespace
}  // namespace mmu
