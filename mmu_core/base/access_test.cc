#include "mmu_core/base/access.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace mmu {
namespace {

// Covers: PF-01
TEST(AccessTest, FaultResultsHaveTheNumbersOfTheReference) {
  EXPECT_EQ(static_cast<int>(FaultResult::kContinue), 0);
  EXPECT_EQ(static_cast<int>(FaultResult::kRetry), 1);
  EXPECT_EQ(static_cast<int>(FaultResult::kEmulate), 2);
  EXPECT_EQ(static_cast<int>(FaultResult::kWriteProtected), 3);
  EXPECT_EQ(static_cast<int>(FaultResult::kInvalid), 4);
  EXPECT_EQ(static_cast<int>(FaultResult::kFixed), 5);
  EXPECT_EQ(static_cast<int>(FaultResult::kSpurious), 6);
}

TEST(AccessTest, EveryFaultResultHasAWordOfItsOwn) {
  std::set<std::string_view> words;
  for (int i = 0; i < kFaultResults; ++i) {
    words.insert(ToString(static_cast<FaultResult>(i)));
  }
  EXPECT_EQ(words.size(), size_t{kFaultResults});
  EXPECT_EQ(words.count(""), size_t{0});
}

TEST(AccessTest, EveryKindOfAccessHasAWordOfItsOwn) {
  EXPECT_EQ(ToString(AccessKind::kRead), "read");
  EXPECT_EQ(ToString(AccessKind::kWrite), "write");
  EXPECT_EQ(ToString(AccessKind::kExec), "exec");
}

}  // namespace
}  // namespace mmu
