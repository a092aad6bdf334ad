#include "mmu_core/base/reason.h"

#include <cstddef>
#include <set>
#include <string_view>

#include "gtest/gtest.h"

namespace mmu {
namespace {

TEST(ReasonTest, EachHasANameOfItsOwnByWhichItIsFound) {
  std::set<std::string_view> names;
  for (size_t i = 0; i < kReasons; ++i) {
    const auto reason = static_cast<Reason>(i);
    EXPECT_TRUE(names.insert(ToString(reason)).second) << reason;
    EXPECT_EQ(ReasonNamed(ToString(reason)), reason);
  }
}

TEST(ReasonTest, NoReasonHasNoNameAndAnUnknownNameNoReason) {
  EXPECT_EQ(ToString(Reason::kNone), "");
  EXPECT_EQ(ReasonNamed(""), Reason::kNone);
  EXPECT_EQ(ReasonNamed("EPOCH_LOST"), Reason::kNone);
  EXPECT_EQ(ToString(Reason::kEpochMismatch), "EPOCH_MISMATCH");
}

}  // namespace
}  // namespace mmu
