#include "mmu_core/base/check.h"

#include <gtest/gtest.h>

namespace mmu {
namespace {

TEST(CheckTest, TrueConditionIsEvaluatedOnceAndPasses) {
  int calls = 0;
  MMU_CHECK(++calls > 0);
  EXPECT_EQ(calls, 1);
}

TEST(CheckDeathTest, FalseConditionAbortsAndNamesConditionAndPlace) {
  const int pages = 3;
  EXPECT_DEATH(MMU_CHECK(pages == 4),
               "check_test.cc:[0-9]+: check failed: pages == 4");
}

#ifdef NDEBUG
TEST(CheckTest, DcheckIsNotEvaluatedWithNdebug) {
  int calls = 0;
  MMU_DCHECK(++calls < 0);
  EXPECT_EQ(calls, 0);
}
#else
TEST(CheckDeathTest, DcheckAbortsWithoutNdebug) {
  const int pages = 3;
  EXPECT_DEATH(MMU_DCHECK(pages == 4), "check failed: pages == 4");
}
#endif

}  // namespace
}  // namespace mmu
