#include "client/text/replace_file.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

class ReplaceFileTest : public testing::Test {
 protected:
  ReplaceFileTest() {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }

  static std::string Read(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  int Files() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      count += entry.exists() ? 1 : 0;
    }
    return count;
  }

  const std::string folder_ = testing::TempDir() + "/replace_file";
  const std::string path_ = folder_ + "/page.html";
};

TEST_F(ReplaceFileTest, AFileIsMadeAndReplaced) {
  EXPECT_EQ(CheckReplaceable(path_), absl::OkStatus());
  ASSERT_EQ(ReplaceFile(path_, "one"), absl::OkStatus());
  EXPECT_EQ(Read(path_), "one");
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  ASSERT_EQ(ReplaceFile(path_, "2"), absl::OkStatus());
  EXPECT_EQ(Read(path_), "2");
  struct stat status;
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0640u);
  EXPECT_EQ(Files(), 1);
}

TEST_F(ReplaceFileTest, ASymlinkStays) {
  ASSERT_EQ(ReplaceFile(path_, "one"), absl::OkStatus());
  const std::string link = folder_ + "/link";
  std::filesystem::create_symlink("page.html", link);
  ASSERT_EQ(ReplaceFile(link, "two"), absl::OkStatus());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(Read(path_), "two");
}

TEST_F(ReplaceFileTest, AfterAnErrorTheFormerFileIsThere) {
  ASSERT_EQ(ReplaceFile(path_, "one"), absl::OkStatus());
  // As if the disk had room for 1000 bytes.
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit limit = {1000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = ReplaceFile(path_, std::string(5000, 'x'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "cannot be written: "))
      << status;
  EXPECT_EQ(Read(path_), "one");
  EXPECT_EQ(Files(), 1);
}

TEST_F(ReplaceFileTest, ADeviceIsWrittenInItsPlace) {
  EXPECT_EQ(ReplaceFile("/dev/null", "one"), absl::OkStatus());
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
  const absl::Status status = ReplaceFile("/dev/full", "one");
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "No space left")) << status;
}

TEST_F(ReplaceFileTest, WhatCannotBeReplacedIsKnownBefore) {
  for (const std::string& path :
       {folder_, folder_ + "/none/page.html", std::string()}) {
    const absl::Status status = CheckReplaceable(path);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << path;
  }
}

}  // namespace
}  // namespace mmud::client
