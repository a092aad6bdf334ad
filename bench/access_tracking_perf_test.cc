#include "bench/access_tracking_perf.h"

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

absl::Status RunWith(const std::vector<std::string>& args, std::string* text) {
  const absl::StatusOr<AccessTrackingPerfOptions> options =
      ParseAccessTrackingPerf(args);
  if (!options.ok()) return options.status();
  std::ostringstream out;
  const absl::Status status = RunAccessTrackingPerf(*options, out);
  *text = out.str();
  return status;
}

// Covers: TST-04, TST-31
TEST(AccessTrackingPerfTest, EveryLineIsPrintedAndAccessedPagesAreNotIdle) {
  const std::string time = kTime;
  std::string text;
  const absl::Status status = RunWith({"-b", "32M", "-v", "2"}, &text);
  EXPECT_TRUE(status.ok()) << status;
  ExpectLines(text, {"guest physical test memory: \\[0x40000000, 0x44000000\\)",
                     "", "Populating memory             : " + time,
                     "Writing to populated memory   : " + time,
                     "Reading from populated memory : " + time,
                     "Mark memory idle \\(page_idle\\)  : " + time,
                     "Writing to idle memory        : " + time,
                     "Mark memory idle \\(page_idle\\)  : " + time,
                     "Reading from idle memory      : " + time});
}

// Covers: TST-04, TST-31
TEST(AccessTrackingPerfTest, AGenerationMarksMemoryIdle) {
  const std::string time = kTime;
  std::string text;
  absl::Status status = RunWith({"-g", "-b", "32M", "-v", "2"}, &text);
  EXPECT_TRUE(status.ok()) << status;
  ExpectLines(text, {"guest physical test memory: \\[0x40000000, 0x44000000\\)",
                     "", "Populating memory             : " + time,
                     "Writing to populated memory   : " + time,
                     "Reading from populated memory : " + time,
                     "Mark memory idle \\(lru_gen\\)    : " + time,
                     "Writing to idle memory        : " + time,
                     "Mark memory idle \\(lru_gen\\)    : " + time,
                     "Reading from idle memory      : " + time});
  status = RunWith({"-g", "-b", "1M"}, &text);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("256 of 256 pages are still idle after an access"));
}

// Only a walk sets an Accessed bit. If the TLB holds a translation of every
// page, the vCPU does not walk again.
//
// Covers: TST-04
TEST(AccessTrackingPerfTest, PagesThatStayIdleFailTheRunOrWarn) {
  std::string text;
  absl::Status status = RunWith({"-b", "1M"}, &text);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("256 of 256 pages are still idle after an access"));
  EXPECT_FALSE(RunWith({"-b", "1M", "-w0"}, &text).ok());

  status = RunWith({"-b", "1M", "-w", "1"}, &text);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(text, HasSubstr("warning: access_tracking_perf: 256 of 256"));
  EXPECT_THAT(text, HasSubstr("Reading from idle memory"));
}

TEST(AccessTrackingPerfTest, SharedAndHugeMemoryIsTrackedToo) {
  std::string text;
  absl::Status status = RunWith(
      {"-o", "-b", "1G", "-v", "2", "-s", "metadata_2mb", "-m", "0"}, &text);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(text, HasSubstr("[0x40000000, 0x80000000)"));
  status = ParseAccessTrackingPerf({"-w", "2"}).status();
  EXPECT_EQ(std::string(status.message()),
            "access_tracking_perf: -w 2: must be a number from -1 to 1");
}

}  // namespace
}  // namespace mmu::bench
