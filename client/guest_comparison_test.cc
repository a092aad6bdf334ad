#include "client/guest_comparison.h"

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "client/guest_copy.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;
constexpr GpaRange kLow = {0, 16 * kPageBytes};
constexpr GpaRange kHigh = {4 * kGib, 16 * kPageBytes};

class GuestComparisonTest : public testing::Test {
 protected:
  void SetUp() override {
    copy_ = *GuestCopy::Create({kLow, kHigh});
    comparison_ = std::make_unique<GuestComparison>(
        copy_.get(),
        std::vector<SlotRange>{SlotRange{0, kLow}, SlotRange{7, kHigh}}, 2);
  }

  std::unique_ptr<GuestCopy> copy_;
  std::unique_ptr<GuestComparison> comparison_;
};

TEST_F(GuestComparisonTest, EqualMemoryIsEqualWhenAllOfItWasSeen) {
  const std::string page(kPageBytes, 'x');
  ASSERT_TRUE(copy_->OnData(kHigh.gpa_bytes + kPageBytes, page).ok());
  EXPECT_TRUE(comparison_->OnZeros(kLow).ok());
  EXPECT_FALSE(comparison_->equal()) << "half of it was not compared";
  EXPECT_TRUE(comparison_->OnZeros({kHigh.gpa_bytes, kPageBytes}).ok());
  EXPECT_TRUE(comparison_->OnData(kHigh.gpa_bytes + kPageBytes, page).ok());
  EXPECT_TRUE(
      comparison_->OnZeros({kHigh.gpa_bytes + 2 * kPageBytes, 14 * kPageBytes})
          .ok());
  EXPECT_TRUE(comparison_->equal());
  EXPECT_EQ(comparison_->compared_bytes(), 32 * kPageBytes);
}

TEST_F(GuestComparisonTest, DifferingPageIsNamed) {
  std::string pages(3 * kPageBytes, 'x');
  ASSERT_TRUE(copy_->OnData(kHigh.gpa_bytes, pages).ok());
  pages[kPageBytes + 21] = 'y';
  pages[kPageBytes + 4095] = 'y';
  ASSERT_TRUE(comparison_->OnData(kHigh.gpa_bytes, pages).ok());
  EXPECT_FALSE(comparison_->equal());
  EXPECT_EQ(comparison_->different_page_count(), 1);
  ASSERT_EQ(comparison_->differences().size(), 1u);
  EXPECT_EQ(ToString(comparison_->differences()[0]),
            "gpa 0x100001000 (slot 7, gfn 0x100001, page 1 of the slot): 2 "
            "bytes differ from byte 21 on: 0x7878797878787878 in the guest, "
            "0x7878787878787878 in the copy");
}

TEST_F(GuestComparisonTest, ZeroPageOfTheGuestIsComparedToo) {
  ASSERT_TRUE(copy_->OnData(5 * kPageBytes, std::string(kPageBytes, 'x')).ok());
  ASSERT_TRUE(comparison_->OnZeros(kLow).ok());
  ASSERT_EQ(comparison_->different_page_count(), 1);
  EXPECT_EQ(comparison_->differences()[0].gpa_bytes, 5 * kPageBytes);
  EXPECT_EQ(comparison_->differences()[0].byte_count, kPageBytes);
}

TEST_F(GuestComparisonTest, CountsEveryPageButKeepsFewDetails) {
  ASSERT_TRUE(comparison_->OnData(0, std::string(5 * kPageBytes, 'x')).ok());
  EXPECT_EQ(comparison_->different_page_count(), 5);
  EXPECT_EQ(comparison_->differences().size(), 2u);
}

TEST_F(GuestComparisonTest, PagesOutsideOfTheCopyAreAnError) {
  EXPECT_TRUE(
      absl::IsOutOfRange(comparison_->OnZeros({16 * kPageBytes, kPageBytes})));
  EXPECT_TRUE(absl::IsOutOfRange(
      comparison_->OnData(kGib, std::string(kPageBytes, 'x'))));
  EXPECT_TRUE(
      absl::IsOutOfRange(copy_->OnData(kGib, std::string(kPageBytes, 'x'))));
  EXPECT_TRUE(absl::IsOutOfRange(copy_->OnZeros({kGib, kPageBytes})));
}

TEST_F(GuestComparisonTest, ZerosReplaceWhatTheCopyHeld) {
  ASSERT_TRUE(copy_->OnData(0, std::string(2 * kPageBytes, 'x')).ok());
  ASSERT_TRUE(copy_->OnZeros({kPageBytes, kPageBytes}).ok());
  EXPECT_EQ(copy_->Bytes({0, 1}), "x");
  EXPECT_EQ(copy_->Bytes({kPageBytes, kPageBytes}),
            std::string(kPageBytes, '\0'));
}

}  // namespace
}  // namespace mmud::client
