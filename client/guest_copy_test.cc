#include "client/guest_copy.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/owner_token.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

constexpr GpaRange kLow = {0, 4 * kPageBytes};
constexpr GpaRange kHigh = {int64_t{1} << 32, 2 * kPageBytes};

class GuestCopyTest : public testing::Test {
 protected:
  GuestCopyTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/copy.XXXXXX");
    folder_ = mkdtemp(name.data());
    path_ = folder_ + "/copy";
  }
  ~GuestCopyTest() override { std::filesystem::remove_all(folder_); }

  const std::string page_ = std::string(kPageBytes, 'x');
  const std::string zeros_ = std::string(kPageBytes, '\0');
  std::string folder_;
  std::string path_;
};

TEST_F(GuestCopyTest, FileIsFoundAsItWasLeft) {
  {
    const auto copy = GuestCopy::OpenFile({kLow, kHigh}, path_);
    ASSERT_TRUE(copy.ok()) << copy.status();
    ASSERT_TRUE((*copy)->OnData(kPageBytes, page_).ok());
    ASSERT_TRUE((*copy)->OnData(kHigh.gpa_bytes, page_).ok());
    ASSERT_TRUE((*copy)->OnData(kHigh.gpa_bytes + kPageBytes, page_).ok());
    ASSERT_TRUE((*copy)->OnZeros({kHigh.gpa_bytes, kPageBytes}).ok());
  }
  const auto copy = GuestCopy::OpenFile({kLow, kHigh}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->Bytes({0, kPageBytes}), zeros_);
  EXPECT_EQ((*copy)->Bytes({kPageBytes, kPageBytes}), page_);
  EXPECT_EQ((*copy)->Bytes({kHigh.gpa_bytes, kPageBytes}), zeros_);
  EXPECT_EQ((*copy)->Bytes({kHigh.gpa_bytes + kPageBytes, kPageBytes}), page_);
}

TEST_F(GuestCopyTest, FileIsOneProcesssAtATime) {
  const auto copy = GuestCopy::OpenFile({kLow}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_TRUE(
      absl::IsFailedPrecondition(GuestCopy::OpenFile({kLow}, path_).status()));
}

TEST_F(GuestCopyTest, FileOfAnotherSizeIsRefused) {
  ASSERT_TRUE(GuestCopy::OpenFile({kLow}, path_).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(
      GuestCopy::OpenFile({kLow, kHigh}, path_).status()));
}

TEST_F(GuestCopyTest, FileKeepsTheTokensOfItsLastTwoOwners) {
  const std::string first(kOwnerTokenBytes, '1');
  const std::string second(kOwnerTokenBytes, '2');
  {
    const auto copy = GuestCopy::OpenFile({kLow}, path_);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_TRUE((*copy)->owner_tokens().empty());
    ASSERT_TRUE((*copy)->KeepOwnerToken(first, "").ok());
  }
  {
    const auto copy = GuestCopy::OpenFile({kLow}, path_);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ((*copy)->owner_tokens(),
              (std::vector<std::string>{first, first}));
    ASSERT_TRUE((*copy)->KeepOwnerToken(second, first).ok());
  }
  const auto copy = GuestCopy::OpenFile({kLow}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->owner_tokens(), (std::vector<std::string>{second, first}));
  EXPECT_EQ(
      std::filesystem::status(path_ + ".token").permissions(),
      std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(GuestCopyTest, TokensOfAFileThatIsGoneOrEmptyAreDropped) {
  const std::string token(kOwnerTokenBytes, '1');
  for (const bool empty : {false, true}) {
    {
      const auto copy = GuestCopy::OpenFile({kLow}, path_);
      ASSERT_TRUE(copy.ok()) << copy.status();
      ASSERT_TRUE((*copy)->KeepOwnerToken(token, "").ok());
    }
    if (empty) {
      std::filesystem::resize_file(path_, 0);
    } else {
      std::filesystem::remove(path_);
    }
    const auto copy = GuestCopy::OpenFile({kLow}, path_);
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_TRUE((*copy)->owner_tokens().empty());
    EXPECT_EQ(std::filesystem::file_size(path_ + ".token"), 0u);
  }
}

TEST_F(GuestCopyTest, TokensThatAreDroppedAreInNoFile) {
  const auto copy = GuestCopy::OpenFile({kLow}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  ASSERT_TRUE(
      (*copy)->KeepOwnerToken(std::string(kOwnerTokenBytes, '1'), "").ok());
  ASSERT_TRUE((*copy)->DropOwnerTokens().ok());
  EXPECT_TRUE((*copy)->owner_tokens().empty());
  EXPECT_EQ(std::filesystem::file_size(path_ + ".token"), 0u);
}

TEST_F(GuestCopyTest, TokensOfAFileThatIsAnothersAreKept) {
  const auto copy = GuestCopy::OpenFile({kLow}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  ASSERT_TRUE(
      (*copy)->KeepOwnerToken(std::string(kOwnerTokenBytes, '1'), "").ok());
  // Its owner has made the file but not yet given it its size.
  std::filesystem::resize_file(path_, 0);
  EXPECT_FALSE(GuestCopy::OpenFile({kLow}, path_).ok());
  EXPECT_EQ(std::filesystem::file_size(path_ + ".token"), 2 * kOwnerTokenBytes);
}

TEST_F(GuestCopyTest, PagesOutsideAreRefused) {
  const auto copy = GuestCopy::OpenFile({kLow}, path_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_TRUE(absl::IsOutOfRange((*copy)->OnData(kHigh.gpa_bytes, page_)));
  EXPECT_TRUE(absl::IsOutOfRange((*copy)->OnZeros(kHigh)));
}

}  // namespace
}  // namespace mmud::client
