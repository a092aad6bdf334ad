#include "server/base/etag.h"

#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud {
namespace {

TEST(Etag, IsTheSameForTheSameStateOnly) {
  EXPECT_EQ(MakeEtag("a"), "af63dc4c8601ec8c");
  EXPECT_NE(MakeEtag("a"), MakeEtag("b"));
}

TEST(Etag, AnEmptyOneMatchesEverything) {
  EXPECT_TRUE(CheckEtag("", "x", "t", "r").ok());
  EXPECT_TRUE(CheckEtag("x", "x", "t", "r").ok());
  EXPECT_EQ(mmu::DetailOf(CheckEtag("y", "x", "t", "r")).reason,
            mmu::Reason::kEtagMismatch);
}

}  // namespace
}  // namespace mmud
