#include "bench/memslot_perf.h"

#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/memslot_area.h"
#include "bench/scenario_test_util.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

using ::testing::HasSubstr;

constexpr const char* kNames[] = {
    "map", "unmap", "unmap chunked", "move active area", "move inactive area",
    "RW",
};

std::string Output(const std::vector<std::string>& args) {
  absl::StatusOr<MemslotPerfOptions> options = ParseMemslotPerf(args);
  EXPECT_TRUE(options.ok()) << options.status();
  options->length = absl::Milliseconds(100);
  std::ostringstream out;
  const absl::Status status = RunMemslotPerf(*options, out);
  EXPECT_TRUE(status.ok()) << status;
  return out.str();
}

// Covers: TST-07, TST-34
TEST(MemslotPerfTest, EverySubTestPrintsItsLines) {
  const std::string time = kTime;
  std::vector<std::string> lines;
  for (const char* name : kNames) {
    lines.insert(lines.end(),
                 {std::string("Testing ") + name +
                      " performance with 1 runs, 0 seconds each",
                  "Test took " + time + " for slot setup \\+ " + time +
                      " all iterations",
                  "Done [0-9]+ iterations, avg " + time + " each",
                  "Best runtime result was " + time +
                      " per iteration \\(with [0-9]+ iterations\\)"});
  }
  lines.push_back("Best slot setup time for the whole test area was " + time);
  ExpectLines(Output({"-s", "64"}), lines);
}

// Covers: TST-07
TEST(MemslotPerfTest, SlotsMoveWithoutTheQuirkToo) {
  const std::string text =
      Output({"-q", "-d", "-v", "-s", "100", "-f", "2", "-e", "4", "-r2"});
  EXPECT_THAT(text, HasSubstr("100 slots of 81 pages\n"));
  EXPECT_THAT(text, HasSubstr("Testing move inactive area performance with 2 "
                              "runs"));
}

// Covers: TST-07
TEST(MemslotPerfTest, AValueThatNobodyWroteIsFound) {
  auto area = MemslotArea::Create(4, VmConfig::SlotZap::kAll).value();
  ASSERT_TRUE(area->ReadAndWrite(0, 4000, 0, 7).ok());
  area->Word(3000).store(8);
  absl::Status status = area->ReadAndWrite(0, 4000, 7, 9);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(std::string(status.message()),
            "memslot_perf: page 3000 has 0x8 where 0x7 was written");
}

// Covers: TST-07
TEST(MemslotPerfTest, AGuestThatMayNotMissAMovedSlotSaysSo) {
  auto area = MemslotArea::Create(4, VmConfig::SlotZap::kSlot).value();
  area->StartCounting(MemslotArea::kPages - 1, MemslotArea::kPages,
                      MemslotArea::MayMiss::kNo);
  ASSERT_TRUE(area->MoveLastSlot(MemslotArea::Place::kElsewhere).ok());
  EXPECT_THAT(std::string(area->StopCounting().message()),
              HasSubstr("was not there"));
}

TEST(MemslotPerfTest, ErrorsNameOptionValueAndRule) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> bad = {
      {{"-s", "1"},
       "memslot_perf: -s 1: must be -1 or a number from 2 to 8192"},
      {{"-e", "6"}, "memslot_perf: -e 6: must be a number from 0 to 5"},
      {{"-f3", "-e2"}, "memslot_perf: -f 3: must be at most -e 2"},
      {{"-l", "0"}, "memslot_perf: -l 0: must be a number from 1 to 86400"},
  };
  for (const auto& [args, message] : bad) {
    EXPECT_EQ(std::string(ParseMemslotPerf(args).status().message()), message);
  }
}

}  // namespace
}  // namespace mmu::bench
