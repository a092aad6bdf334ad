#include "mmu_core/guest/gpa_space.h"

#include <cstdint>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmu {
namespace {

GfnRange Frames(uint64_t start, uint64_t pages) {
  return GfnRange::Of(Gfn(start), pages);
}

GpaSpace SpaceOf(std::vector<GfnRange> ranges) {
  return GpaSpace::Create(std::move(ranges)).value();
}

std::vector<uint64_t> AllFrames(const GpaSpace& space) {
  std::vector<uint64_t> frames;
  for (uint64_t page = 0; page < space.pages(); ++page) {
    frames.push_back(space.PageAt(page).value());
  }
  return frames;
}

TEST(GpaSpaceTest, RunsThroughTheRangesInTheirOrderAndSkipsHoles) {
  const GpaSpace space = SpaceOf({Frames(100, 2), Frames(10, 3)});
  EXPECT_EQ(AllFrames(space), (std::vector<uint64_t>{100, 101, 10, 11, 12}));
  EXPECT_EQ(space.size_bytes(), 5u * 4096);
}

TEST(GpaSpaceTest, KeepsTheOffsetInsideThePage) {
  const GpaSpace space = SpaceOf({Frames(100, 2), Frames(10, 3)});
  EXPECT_EQ(space.At(0), Gpa(100 << 12));
  EXPECT_EQ(space.At(2 * 4096 + 17), Gpa((10 << 12) + 17));
  EXPECT_EQ(space.At(5 * 4096 - 1), Gpa((13 << 12) - 1));
}

TEST(GpaSpaceTest, ContainsExactlyItsOwnPages) {
  const GpaSpace space = SpaceOf({Frames(100, 2), Frames(10, 3)});
  EXPECT_TRUE(space.Contains(Gpa(100 << 12)));
  EXPECT_TRUE(space.Contains(Gpa((13 << 12) - 1)));
  EXPECT_FALSE(space.Contains(Gpa(13 << 12)));
  EXPECT_FALSE(space.Contains(Gpa((100 << 12) - 1)));
}

TEST(GpaSpaceTest, SliceIsTheSamePagesAsTheWholeInThatWindow) {
  const GpaSpace space =
      SpaceOf({Frames(100, 2), Frames(10, 3), Frames(50, 4)});
  const std::vector<uint64_t> all = AllFrames(space);
  for (uint64_t first = 0; first <= all.size(); ++first) {
    for (uint64_t pages = 0; pages <= all.size() - first; ++pages) {
      EXPECT_EQ(AllFrames(space.Slice(first, pages)),
                std::vector<uint64_t>(all.begin() + first,
                                      all.begin() + first + pages));
    }
  }
}

TEST(GpaSpaceTest, SharesAreDisjointCoverTheSpaceAndAreEven) {
  const GpaSpace space = SpaceOf({Frames(0, 640), Frames(1000, 361)});
  for (const uint32_t count : {1u, 2u, 3u, 7u, 64u, 1001u}) {
    std::vector<uint64_t> together;
    for (uint32_t index = 0; index < count; ++index) {
      const GpaSpace share = space.Share(index, count);
      EXPECT_GE(share.pages(), space.pages() / count);
      EXPECT_LE(share.pages(), space.pages() / count + 1);
      for (const uint64_t frame : AllFrames(share)) together.push_back(frame);
    }
    EXPECT_EQ(together, AllFrames(space)) << count << " vCPUs";
  }
}

TEST(GpaSpaceTest, MoreVcpusThanPagesLeavesSomeSharesEmpty) {
  const GpaSpace space = SpaceOf({Frames(7, 2)});
  uint64_t pages = 0;
  for (uint32_t index = 0; index < 5; ++index) {
    pages += space.Share(index, 5).pages();
  }
  EXPECT_EQ(pages, 2u);
}

TEST(GpaSpaceTest, RejectsEmptyOverlappingAndUnaddressableRanges) {
  for (const std::vector<GfnRange>& bad :
       {std::vector<GfnRange>{Frames(5, 0)},
        std::vector<GfnRange>{Frames(0, 10), Frames(9, 1)},
        std::vector<GfnRange>{Frames(9, 1), Frames(0, 10)},
        std::vector<GfnRange>{Frames((uint64_t{1} << 40) - 1, 2)}}) {
    EXPECT_EQ(GpaSpace::Create(bad).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(GpaSpaceTest, NoRangesAreAnEmptySpace) {
  EXPECT_EQ(SpaceOf({}).pages(), 0u);
  EXPECT_EQ(SpaceOf({}).Share(0, 2).pages(), 0u);
}

}  // namespace
}  // namespace mmu
