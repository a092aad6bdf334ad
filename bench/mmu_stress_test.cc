#include "bench/mmu_stress.h"

#include <sstream>
#include <string>

#include "absl/status/status.h"
#include "bench/scenario_test_util.h"
#include "gtest/gtest.h"

namespace mmu::bench {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// RunMmuStress itself checks the outcome of each access, the contents and the
// auditor's report.
void RunAndExpectLines(const MmuStressOptions& options,
                       const std::string& first_line) {
  std::ostringstream out;
  const absl::Status status = RunMmuStress(options, out);
  EXPECT_TRUE(status.ok()) << status;
  const std::string time = kTime;
  ExpectLines(out.str(), {first_line, "run1 = " + time + ", reset = " + time +
                                          ", run2 = " + time +
                                          ", ro = " + time + ", rw = " + time});
}

// Covers: TST-06, TST-33
TEST(MmuStressTest, EveryStageEndsAsItShallAndTheLastLineHasTheTimes) {
  MmuStressOptions options;
  options.vcpus = 3;
  options.memory_bytes = 64 * kMiB;
  options.slot_bytes = 4 * kMiB;
  options.backing = BackingKind::kAnonymous;
  RunAndExpectLines(options, "Running with 64 MiB of guest memory and 3 vCPUs");
}

// Covers: TST-06
TEST(MmuStressTest, HugePagesGoThroughTheSameStages) {
  const auto options = ParseMmuStress({"-c", "2", "-m", "2", "-s", "1", "-H"});
  ASSERT_TRUE(options.ok()) << options.status();
  RunAndExpectLines(*options,
                    "Running with 2048 MiB of guest memory and 2 vCPUs");
}

TEST(MmuStressTest, OptionsAreInGiBAndSlotsDivideTheMemory) {
  const auto options = ParseMmuStress({});
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->memory_bytes, uint64_t{128} << 30);
  EXPECT_EQ(options->slot_bytes, uint64_t{2} << 30);
  EXPECT_EQ(std::string(ParseMmuStress({"-m3"}).status().message()),
            "mmu_stress: -s 2: must be a divisor of -m 3");
  EXPECT_EQ(std::string(ParseMmuStress({"-c", "0"}).status().message()),
            "mmu_stress: -c 0: must be a number from 1 to 256");
}

}  // namespace
}  // namespace mmu::bench
