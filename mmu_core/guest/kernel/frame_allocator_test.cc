#include "mmu_core/guest/kernel/frame_allocator.h"

#include <cstdint>
#include <optional>
#include <set>

#include "gtest/gtest.h"

namespace mmu {
namespace {

GpaSpace Space() {
  return *GpaSpace::Create(
      {GfnRange::Of(Gfn(0), 20), GfnRange::Of(Gfn(100), 30)});
}

TEST(FrameAllocatorTest, EachFrameIsHandedOutOnceUntilItIsDropped) {
  FrameAllocator frames(Space());
  std::set<Gfn> seen;
  for (int i = 0; i < 50; ++i) {
    const std::optional<FrameAllocator::Frame> frame = frames.Allocate();
    ASSERT_TRUE(frame.has_value());
    EXPECT_FALSE(frame->recycled);
    EXPECT_TRUE(seen.insert(frame->gfn).second);
  }
  EXPECT_FALSE(frames.Allocate().has_value());
  EXPECT_EQ(frames.frames_in_use(), 50u);
  frames.Drop(Gfn(7));
  const std::optional<FrameAllocator::Frame> again = frames.Allocate();
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->gfn, Gfn(7));
  EXPECT_TRUE(again->recycled);
}

TEST(FrameAllocatorTest, AFrameIsFreeWhenItsLastReferenceIsDropped) {
  FrameAllocator frames(Space());
  const Gfn gfn = frames.Allocate()->gfn;
  frames.AddReference(gfn);
  EXPECT_EQ(frames.references(gfn), 2);
  frames.Drop(gfn);
  EXPECT_EQ(frames.references(gfn), 1);
  frames.Drop(gfn);
  EXPECT_EQ(frames.frames_in_use(), 0u);
}

// Runs of 8 frames begin at multiples of 8. The memory above 128 is too small
// for a run, and no run crosses the hole between 20 and 100.
TEST(FrameAllocatorTest, RunsAreAlignedAndContiguous) {
  FrameAllocator frames(Space());
  EXPECT_EQ(frames.AllocateRun(8), Gfn(120));
  EXPECT_EQ(frames.AllocateRun(8), Gfn(112));
  EXPECT_EQ(frames.AllocateRun(8), Gfn(104));
  EXPECT_EQ(frames.AllocateRun(8), Gfn(8));
  EXPECT_EQ(frames.AllocateRun(8), Gfn(0));
  EXPECT_EQ(frames.AllocateRun(8), std::nullopt);
  EXPECT_EQ(frames.frames_in_use(), 40u);
  // The ten frames outside of all runs can be allocated one by one.
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(frames.Allocate().has_value()) << i;
  EXPECT_FALSE(frames.Allocate().has_value());
}

}  // namespace
}  // namespace mmu
