#include "mmu_core/tlb/flush_queue.h"

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {
namespace {

TlbFlush FlushOf(uint64_t gfn) {
  return {.mmu = MmuKind::kShadow,
          .gfns = GfnRange::Of(Gfn(gfn), 1),
          .depth = FlushDepth::kLeafs};
}

TEST(FlushQueueTest, FlushesComeOutOnceInTheirOrder) {
  FlushQueue queue;
  EXPECT_TRUE(queue.Peek().empty());
  queue.Add(FlushOf(1));
  queue.Add(FlushOf(2));
  EXPECT_EQ(queue.Peek().count, 2u);
  const PendingFlushes taken = queue.Take();
  EXPECT_FALSE(taken.all);
  ASSERT_EQ(taken.count, 2u);
  EXPECT_EQ(taken.span()[0].gfns.start, Gfn(1));
  EXPECT_EQ(taken.span()[1].gfns.start, Gfn(2));
  EXPECT_EQ(taken.span()[1].mmu, MmuKind::kShadow);
  EXPECT_EQ(taken.span()[1].depth, FlushDepth::kLeafs);
  EXPECT_TRUE(queue.Take().empty());
}

TEST(FlushQueueTest, AFlushThatFindsNoRoomMakesItAFlushOfEverything) {
  FlushQueue queue;
  for (size_t i = 0; i < PendingFlushes::kCapacity; ++i) queue.Add(FlushOf(i));
  EXPECT_FALSE(queue.Peek().all);
  queue.Add(FlushOf(99));
  EXPECT_TRUE(queue.Peek().all);
  queue.Add(FlushOf(100));
  EXPECT_TRUE(queue.Take().all);
  queue.Add(FlushOf(1));
  EXPECT_FALSE(queue.Peek().all) << "the queue is as new";
  EXPECT_EQ(queue.Peek().count, 1u);
}

TEST(FlushQueueTest, OnlyAFlushOfAllMmusAndGfnsIsOneOfEverything) {
  FlushQueue queue;
  TlbFlush flush;
  flush.mmu = MmuKind::kTdp;
  queue.Add(flush);
  EXPECT_FALSE(queue.Peek().all) << "of one MMU";
  queue.Add(TlbFlush());
  EXPECT_TRUE(queue.Peek().all);
}

TEST(TlbFlushTest, AFlushCoversOneMmuOrAll) {
  EXPECT_TRUE(FlushOf(1).Covers(MmuKind::kShadow));
  EXPECT_FALSE(FlushOf(1).Covers(MmuKind::kTdp));
  EXPECT_TRUE(TlbFlush().Covers(MmuKind::kTdp));
  EXPECT_TRUE(TlbFlush().Covers(MmuKind::kShadow));
  EXPECT_TRUE(TlbFlush().CoversAllGfns());
  EXPECT_FALSE(FlushOf(1).CoversAllGfns());
}

}  // namespace
}  // namespace mmu
