#include "mmu_core/guest/first_touch_map.h"

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/guest/random.h"

namespace mmu {
namespace {

GpaSpace Share(uint64_t pages) {
  return GpaSpace::Create({GfnRange::Of(Gfn(1000), pages)}).value();
}

std::vector<uint64_t> Touch(FirstTouchMap& map,
                            const std::vector<uint64_t>& program_pages) {
  std::vector<uint64_t> frames;
  for (const uint64_t page : program_pages) {
    frames.push_back(map.Map(page).value().value());
  }
  return frames;
}

TEST(FirstTouchMapTest, HandsOutPagesInTheOrderOfFirstTouch) {
  FirstTouchMap map(Share(10), PagePlacement::kContiguous, 1);
  EXPECT_EQ(Touch(map, {0x7fff0, 0x401, 0x7fff0, 0x402, 0x401}),
            (std::vector<uint64_t>{1000, 1001, 1000, 1002, 1001}));
  EXPECT_EQ(map.process_pages(), 3u);
}

TEST(FirstTouchMapTest, PagesOfOneProcessAreAllDifferentAndInTheShare) {
  for (const PagePlacement placement :
       {PagePlacement::kContiguous, PagePlacement::kScattered}) {
    FirstTouchMap map(Share(500), placement, 3);
    Rng rng(8);
    for (int process = 0; process < 7; ++process) {
      std::set<uint64_t> program;
      std::set<Gfn> guest;
      for (int i = 0; i < 2000; ++i) {
        const uint64_t page = UniformBelow(rng, 400);
        const std::optional<Gfn> gfn = map.Map(page);
        ASSERT_TRUE(gfn.has_value());
        ASSERT_GE(*gfn, Gfn(1000));
        ASSERT_LT(*gfn, Gfn(1500));
        ASSERT_EQ(map.Map(page), gfn);
        program.insert(page);
        guest.insert(*gfn);
      }
      EXPECT_EQ(program.size(), guest.size());
      EXPECT_EQ(map.process_pages(), program.size());
      map.StartNewProcess();
    }
  }
}

TEST(FirstTouchMapTest, NextProcessContinuesBehindAndWrapsToFreedPages) {
  FirstTouchMap map(Share(5), PagePlacement::kContiguous, 1);
  EXPECT_EQ(Touch(map, {1, 2, 3}), (std::vector<uint64_t>{1000, 1001, 1002}));
  map.StartNewProcess();
  EXPECT_EQ(Touch(map, {1, 2, 3}), (std::vector<uint64_t>{1003, 1004, 1000}));
  map.StartNewProcess();
  EXPECT_EQ(Touch(map, {3, 2, 1}), (std::vector<uint64_t>{1001, 1002, 1003}));
  EXPECT_EQ(map.total_first_touches(), 9u);
}

TEST(FirstTouchMapTest, FullShareGivesNothingMoreButKeepsWhatThereIs) {
  FirstTouchMap map(Share(2), PagePlacement::kContiguous, 1);
  Touch(map, {7, 8});
  EXPECT_EQ(map.Map(9), std::nullopt);
  EXPECT_EQ(map.Map(7), Gfn(1000));
  map.StartNewProcess();
  EXPECT_NE(map.Map(9), std::nullopt);
}

TEST(FirstTouchMapTest, ScatteredPlacementIsFixedByTheSeed) {
  const std::vector<uint64_t> touches = {1, 2, 3, 4, 5, 6, 7, 8};
  FirstTouchMap a(Share(1000), PagePlacement::kScattered, 1);
  FirstTouchMap again(Share(1000), PagePlacement::kScattered, 1);
  FirstTouchMap b(Share(1000), PagePlacement::kScattered, 2);
  const std::vector<uint64_t> frames = Touch(a, touches);
  EXPECT_EQ(frames, Touch(again, touches));
  EXPECT_NE(frames, Touch(b, touches));
}

}  // namespace
}  // namespace mmu
