#include "tests/model/progress.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmu::testing {
namespace {

std::string FileOf(const std::string& name) {
  return std::string(std::getenv("TEST_TMPDIR")) + "/" + name;
}

TEST(ProgressTest, IsReadAsItWasWritten) {
  Progress progress;
  progress.run = {.seed = ~uint64_t{0},
                  .shard = 3,
                  .shards = 7,
                  .mmu = "nested",
                  .block_operations = 20'000};
  progress.binary = "0123456789abcdef";
  progress.blocks_done = 5;
  progress.operations = {1, 2, 3, 4};
  progress.cpu_seconds = {0.5, 0, 2, 3.25};
  const std::string file = FileOf("progress");
  ASSERT_TRUE(WriteProgress(file, progress).ok());
  progress.blocks_done = 6;
  ASSERT_TRUE(WriteProgress(file, progress).ok());
  const absl::StatusOr<Progress> read = ReadProgress(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->run, progress.run);
  EXPECT_EQ(read->binary, progress.binary);
  EXPECT_EQ(read->blocks_done, 6u);
  EXPECT_EQ(read->operations, progress.operations);
  EXPECT_EQ(read->cpu_seconds, progress.cpu_seconds);
  EXPECT_EQ(read->AllOperations(), 10u);
}

TEST(ProgressTest, AMissingFileIsNoError) {
  EXPECT_TRUE(absl::IsNotFound(ReadProgress(FileOf("missing")).status()));
}

TEST(ProgressTest, ATruncatedFileIsRefused) {
  const std::string file = FileOf("truncated");
  std::ofstream(file) << "seed 1\nshard 0\nshards 1\nmmu all\n"
                         "block_operations 5\nblocks_done 17\n";
  EXPECT_TRUE(absl::IsInvalidArgument(ReadProgress(file).status()));
}

TEST(ProgressTest, AnUnwritablePlaceIsAnError) {
  EXPECT_FALSE(WriteProgress("/no such folder/progress", {}).ok());
}

}  // namespace
}  // namespace mmu::testing
