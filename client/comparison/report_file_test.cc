#include "client/comparison/report_file.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"

namespace mmud::client {
namespace {

std::string PathOf(const std::string& name) {
  return testing::TempDir() + "/" + name;
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(ReportFileTest, AReportReplacesTheContents) {
  const std::string path = PathOf("old");
  std::ofstream(path) << "a long old report";
  {
    const auto file = ReportFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(ReadAll(path), "a long old report");
    ASSERT_TRUE((*file)->Write("new").ok());
  }
  EXPECT_EQ(ReadAll(path), "new");
}

TEST(ReportFileTest, WithoutAReportTheFileIsAsItWas) {
  const std::string path = PathOf("kept");
  std::ofstream(path) << "old";
  ASSERT_TRUE(ReportFile::Open(path).ok());
  EXPECT_EQ(ReadAll(path), "old");
  ASSERT_TRUE(ReportFile::Open(PathOf("new")).ok());
  EXPECT_FALSE(std::filesystem::exists(PathOf("new")));
}

TEST(ReportFileTest, AFileThatCannotBeWrittenIsFoundWhenItIsOpened) {
  for (const std::string& path : {PathOf("no/such/folder"), PathOf(".")}) {
    const auto file = ReportFile::Open(path);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(file.status().message().find("'" + path + "' cannot be written"),
              std::string::npos)
        << file.status();
  }
}

TEST(ReportFileTest, AFullDiskIsAnError) {
  const auto file = ReportFile::Open("/dev/full");
  ASSERT_TRUE(file.ok()) << file.status();
  const absl::Status status = (*file)->Write("report");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

}  // namespace
}  // namespace mmud::client
