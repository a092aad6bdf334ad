#include "mmu_core/dirty/dirty_window.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace mmu {
namespace {

// Covers: DL-43
TEST(DirtyWindowTest, PagesWithinSixtyFourForwardJoin) {
  DirtyWindow window = DirtyWindow::Of({7, 100});
  EXPECT_TRUE(window.Add({7, 100}));
  EXPECT_TRUE(window.Add({7, 163}));
  EXPECT_EQ(window, (DirtyWindow{7, 100, uint64_t{1} << 63 | 1}));
  EXPECT_FALSE(window.Add({7, 164}));
  EXPECT_FALSE(window.Add({8, 101})) << "another slot";
  EXPECT_EQ(window, (DirtyWindow{7, 100, uint64_t{1} << 63 | 1}));
}

// Covers: DL-43
TEST(DirtyWindowTest, PagesBeforeJoinAsLongAsTheMaskLosesNone) {
  DirtyWindow window = DirtyWindow::Of({7, 100});
  EXPECT_TRUE(window.Add({7, 110}));
  EXPECT_TRUE(window.Add({7, 47}));
  EXPECT_EQ(window,
            (DirtyWindow{7, 47, uint64_t{1} << 63 | uint64_t{1} << 53 | 1}));
  EXPECT_FALSE(window.Add({7, 46})) << "page 110 would fall out";
  EXPECT_FALSE(DirtyWindow(window).Add({7, 0}));
  DirtyWindow far = DirtyWindow::Of({7, 100});
  EXPECT_FALSE(far.Add({7, 36}));
  EXPECT_FALSE(far.Add({7, std::numeric_limits<uint64_t>::max()}));
  EXPECT_EQ(far, DirtyWindow::Of({7, 100}));
}

}  // namespace
}  // namespace mmu
