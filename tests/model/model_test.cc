// Random sequences of operations on VMs of each kind, compared with a flat
// model. MODEL_TEST_SECONDS (default 2) says for how long, for each MMU and
// each of the two tests of it. Both print their seeds and how much they did. A
// difference is printed as C++ for a named test in model_mistakes_test.cc.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/testing/mmu_mode_names.h"
#include "tests/model/model_config.h"
#include "tests/model/operation.h"
#include "tests/model/run_operations.h"

namespace mmu::testing {
namespace {

class ModelTest : public ::testing::TestWithParam<MmuMode> {
 protected:
  // Runs sequences of `count` operations, each on a VM of its own, until the
  // time is over.
  static void Run(size_t count, size_t check_every) {
    const char* seconds = std::getenv("MODEL_TEST_SECONDS");
    const MonotonicTime end =
        MonotonicTime::Now() +
        absl::Seconds(seconds == nullptr ? 2 : std::atoi(seconds));
    const RunOptions options = {.check_every = check_every, .mistakes = {}};
    uint64_t seed = 0;
    do {
      ++seed;
      const ModelConfig config = RandomModelConfig(seed, GetParam());
      const std::vector<Operation> operations =
          RandomOperations(seed, count, config);
      const std::optional<Difference> found =
          FindDifference(operations, config, options);
      if (found.has_value()) {
        const std::vector<Operation> fewest =
            Minimise(operations, config, options, absl::Seconds(30));
        FAIL() << found->problem << "\n" << RunOperations(fewest, config);
      }
    } while (MonotonicTime::Now() < end);
    std::printf("%s: seeds 1 to %lu, %lu operations\n", ToString(GetParam()),
                seed, seed * count);
  }
};

// Covers: STAT-41
TEST_P(ModelTest, AVmBehavesAsTheModelAfterEveryStep) {
  Run(/*count=*/300, /*check_every=*/1);
}

TEST_P(ModelTest, LongRunsAgreeToo) {
  Run(/*count=*/20'000, /*check_every=*/1'000);
}

INSTANTIATE_TEST_SUITE_P(Mmus, ModelTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow,
                                           MmuMode::kShadow, MmuMode::kNested,
                                           MmuMode::kStage2),
                         [](const auto& mmu) {
                           return std::string(ToString(mmu.param));
                         });

// A block of a long run is the same on every machine, and in every version that
// does not change the operations.
TEST(RandomOperationsTest, FollowFromTheSeed) {
  const ModelConfig config = RandomModelConfig(1, MmuMode::kShadow);
  EXPECT_EQ(RandomOperations(1, 1000, config),
            RandomOperations(1, 1000, config));
  EXPECT_NE(RandomOperations(1, 1000, config),
            RandomOperations(2, 1000, config));
}

// Otherwise a run would not test all of what it claims to test.
TEST(RandomOperationsTest, HaveAllKinds) {
  const ModelConfig config = RandomModelConfig(1, MmuMode::kNested);
  std::vector<int> counts(Operation::kKinds);
  for (const Operation& op : RandomOperations(1, 100'000, config)) {
    ++counts[static_cast<size_t>(op.kind)];
  }
  for (int kind = 0; kind < Operation::kKinds; ++kind) {
    EXPECT_GT(counts[static_cast<size_t>(kind)], 0)
        << ToString({static_cast<Operation::Kind>(kind), 0, 0, 0});
  }
}

}  // namespace
}  // namespace mmu::testing
