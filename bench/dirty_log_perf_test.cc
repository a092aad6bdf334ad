#include "bench/dirty_log_perf.h"

#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/scenario_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

using ::testing::HasSubstr;

std::string Output(const std::vector<std::string>& args) {
  const absl::StatusOr<DirtyLogPerfOptions> options = ParseDirtyLogPerf(args);
  EXPECT_TRUE(options.ok()) << options.status();
  std::ostringstream out;
  const absl::Status status = RunDirtyLogPerf(*options, out);
  EXPECT_TRUE(status.ok()) << status;
  return out.str();
}

// Covers: TST-01, TST-30
TEST(DirtyLogPerfTest, ManualProtectionPrintsEveryLineInOrder) {
  const std::string time = kTime;
  const std::string text = Output(
      {"-b", "8M", "-v2", "-i", "2", "-s", "anonymous_hugetlb_2mb", "-x", "2"});
  ExpectLines(text, {"Test iterations: 2",
                     "guest physical test memory: \\[0x40000000, 0x41000000\\)",
                     "Populate memory time: " + time,
                     "Enabling dirty logging time: " + time, "",
                     "Iteration 1 dirty memory time: " + time,
                     "Iteration 1 get dirty log time: " + time,
                     "Iteration 1 clear dirty log time: " + time,
                     "Iteration 2 dirty memory time: " + time,
                     "Iteration 2 get dirty log time: " + time,
                     "Iteration 2 clear dirty log time: " + time,
                     "Disabling dirty logging time: " + time,
                     "Get dirty log over 2 iterations took " + time +
                         "\\. \\(Avg " + time + "/iteration\\)",
                     "Clear dirty log over 2 iterations took " + time +
                         "\\. \\(Avg " + time + "/iteration\\)"});
}

// Covers: TST-01
TEST(DirtyLogPerfTest, AWorkloadWritesAndLogsTheShareOfItsPagesThatItIsTold) {
  const auto run = [](const std::vector<std::string>& args) {
    const absl::StatusOr<DirtyLogPerfOptions> options = ParseDirtyLogPerf(args);
    EXPECT_TRUE(options.ok()) << options.status();
    std::ostringstream out;
    const absl::StatusOr<DirtyLogPerfTimes> times =
        MeasureDirtyLogPerf(*options, out);
    EXPECT_TRUE(times.ok()) << times.status();
    return times.value_or(DirtyLogPerfTimes());
  };
  // Two vCPUs with 1,024 pages each, three iterations.
  const std::vector<std::string> all = {"-b", "4M", "-v", "2", "-i", "3"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), all.begin(), all.end());
    return run(more);
  };
  EXPECT_EQ(with({}).pages_written, 3u * 2048);
  EXPECT_EQ(with({}).pages_logged, 3u * 2048);
  EXPECT_EQ(with({"-g"}).pages_logged, 3u * 2048);
  EXPECT_EQ(with({"-o"}).pages_written, 3u * 1024) << "the same pages";
  EXPECT_EQ(with({"-w", "0"}).pages_written, 0u);
  EXPECT_EQ(with({"-w", "0"}).pages_logged, 2048u)
      << "a log that is initially set begins with all pages";
  EXPECT_EQ(with({"-g", "-w", "0"}).pages_logged, 0u);
  const DirtyLogPerfTimes half = with({"-g", "-w", "50"});
  EXPECT_GT(half.pages_written, 2048u);
  EXPECT_LT(half.pages_written, 2u * 2048);
  EXPECT_EQ(half.pages_logged, half.pages_written);
}

// Covers: TST-30
TEST(DirtyLogPerfTest, LegacyGetHasNoClearLines) {
  const std::string text = Output({"-b", "4M", "-g"});
  EXPECT_THAT(text, HasSubstr("Iteration 2 get dirty log time: "));
  EXPECT_THAT(text, HasSubstr("Get dirty log over 2 iterations"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("lear dirty log")));
}

// Every combination must find each written page in the log, which the run
// itself verifies.
TEST(DirtyLogPerfTest, NothingIsLostWithAnyOptions) {
  const std::vector<std::vector<std::string>> runs = {
      {"-b", "4M", "-v", "2", "-o", "-a", "-w", "30", "-r", "7"},
      {"-b", "4M", "-e", "-v", "2", "-s", "anonymous_hugetlb_2mb"},
      {"-b", "4M", "-E", "-s", "anonymous_thp", "-i", "3"},
      {"-b", "4M", "-E", "-g", "-s", "shmem", "-p", "2M", "-x", "4"},
      {"-b", "1G", "-g", "-s", "metadata_1gb", "-w", "0"},
      {"-n", "-b", "4M", "-v", "2", "-s", "anonymous_hugetlb_2mb", "-w", "50"},
      {"-n", "-b", "4M", "-g", "-s", "anonymous_hugetlb_2mb", "-x", "2"},
      {"-n", "-b", "4M", "-E", "-g", "-e", "-s", "anonymous_hugetlb_2mb"},
  };
  for (const std::vector<std::string>& args : runs) {
    EXPECT_THAT(Output(args), HasSubstr("Disabling dirty logging time"));
  }
}

TEST(DirtyLogPerfTest, OptionsAreWhatTheySay) {
  const DirtyLogPerfOptions o =
      *ParseDirtyLogPerf({"-a", "-e", "-g", "-o", "-E", "-b",    "512M", "-i3",
                          "-p", "2G", "-r", "9",  "-s", "shmem", "-v",   "3",
                          "-w", "5",  "-x", "4",  "-c", "0,0,1", "-m",   "0"});
  EXPECT_TRUE(o.random_access && o.run_while_disabling && o.legacy_get &&
              o.overlap && !o.eager_page_split);
  EXPECT_EQ(o.bytes_per_vcpu, uint64_t{512} << 20);
  EXPECT_EQ(o.iterations, 3u);
  EXPECT_EQ(o.offset_bytes, uint64_t{2} << 30);
  EXPECT_EQ(o.seed, 9u);
  EXPECT_EQ(o.backing, BackingKind::kMemfd);
  EXPECT_EQ(o.vcpus, 3);
  EXPECT_EQ(o.write_percent, 5u);
  EXPECT_EQ(o.slots, 4u);
  EXPECT_EQ(o.cpus, (std::vector<int>{0, 0, 1}));
}

TEST(DirtyLogPerfTest, ErrorsNameOptionValueAndRule) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> bad = {
      {{"-i", "1"}, "-i 1: must be a number from 2"},
      {{"-v", "0"}, "-v 0: must be a number from 1 to 256"},
      {{"-b", "5000"}, "-b 5000: must be a multiple of 4096"},
      {{"-b", "0"}, "-b 0: must be at least 4096"},
      {{"-w", "101"}, "-w 101: must be a number from 0 to 100"},
      {{"-s", "floppy"}, "-s floppy: must be one of anonymous,"},
      {{"-m", "3"}, "-m 3: must be a number from 0 to 0"},
      {{"-c", "0,1"}, "as many as -v says: 1"},
      {{"-b", "4M", "-x", "3"}, "-x 3: must be a divisor of the 1024 pages"},
      {{"-b"}, "-b : must be followed by a value"},
      {{"-ae"}, "-a e: must be given without a value"},
      {{"-Z", "1"}, "unknown option -Z"},
      {{"fast"}, "'fast' is not an option"},
      {{"-n", "-p", "512K"}, "-p 524288: must be at least 1048576 with -n"},
  };
  for (const auto& [args, message] : bad) {
    const absl::Status status = ParseDirtyLogPerf(args).status();
    EXPECT_FALSE(status.ok()) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace mmu::bench
