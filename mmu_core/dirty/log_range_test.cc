#include "mmu_core/dirty/log_range.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmu {
namespace {

constexpr uint64_t kAll = ~uint64_t{0};

// Returns "REASON parameter", or "" if the range lies within the slot.
std::string Why(uint64_t slot_pages, uint64_t first, uint64_t count) {
  const absl::Status status = CheckLogRange(slot_pages, first, count);
  if (status.ok()) return "";
  const ErrorDetail detail = DetailOf(status);
  return absl::StrCat(std::string(ToString(detail.reason)), " ", detail.field);
}

TEST(LogRangeTest, ARangeBeginsAndEndsBetweenWordsOrEndsWithItsSlot) {
  static_assert(MayBeginLogRange(0) && MayBeginLogRange(128));
  static_assert(!MayBeginLogRange(1) && !MayBeginLogRange(200));
  static_assert(MayEndLogRange(128, 200) && MayEndLogRange(200, 200));
  static_assert(!MayEndLogRange(127, 200) && !MayEndLogRange(199, 200));
}

TEST(LogRangeTest, ARangeHasWholeWordsUnlessItEndsWithItsSlot) {
  EXPECT_EQ(Why(200, 0, 200), "");
  EXPECT_EQ(Why(200, 64, 128), "");
  EXPECT_EQ(Why(200, 192, 8), "");
  EXPECT_EQ(Why(200, 1, 64), "UNALIGNED_CLEAR first_page");
  EXPECT_EQ(Why(200, 64, 65), "UNALIGNED_CLEAR page_count");
  EXPECT_EQ(Why(200, 192, 7), "UNALIGNED_CLEAR page_count");
}

TEST(LogRangeTest, ARangeLiesWithinItsSlot) {
  EXPECT_EQ(Why(128, 128, 0), "") << "none of its pages";
  EXPECT_EQ(Why(128, 64, 128), "GPA_OUT_OF_RANGE first_page");
  EXPECT_EQ(Why(128, 192, 0), "GPA_OUT_OF_RANGE first_page");
  EXPECT_EQ(Why(128, 64, kAll), "GPA_OUT_OF_RANGE first_page");
  EXPECT_EQ(Why(128, kAll - 63, 64), "GPA_OUT_OF_RANGE first_page");
}

TEST(LogRangeTest, OfASlotThatIsNotThereOnlyTheBeginIsLookedAt) {
  EXPECT_EQ(Why(0, 64, 7), "");
  EXPECT_EQ(Why(0, 63, 64), "UNALIGNED_CLEAR first_page");
}

}  // namespace
}  // namespace mmu
