// Random sequences of operations on a VM, compared with a flat model after each
// step. MODEL_TEST_SECONDS (default 8) says for how long; RapidCheck prints the
// shortest failing sequence it finds, as C++ for a named test below.

#include <rapidcheck.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/testing/fault_injection.h"
#include "tests/model/operations.h"

namespace rc {

template <>
struct Arbitrary<mmu::testing::Operation> {
  static Gen<mmu::testing::Operation> arbitrary() {
    using mmu::testing::Operation;
    using Kind = Operation::Kind;
    // Accesses find most errors; slots rarely come and go.
    const auto kind = gen::weightedElement<Kind>({
        {10, Kind::kRead},    {16, Kind::kWrite},      {2, Kind::kExec},
        {6, Kind::kSweep},    {6, Kind::kCreate},      {1, Kind::kDelete},
        {2, Kind::kMove},     {5, Kind::kStart},       {2, Kind::kStop},
        {8, Kind::kSeal},     {3, Kind::kPeek},        {8, Kind::kClear},
        {6, Kind::kCopy},     {5, Kind::kAcknowledge}, {5, Kind::kAckPages},
        {1, Kind::kTakeOver}, {3, Kind::kSplit},       {2, Kind::kRecover},
        {3, Kind::kAge},      {2, Kind::kDropTlb},     {1, Kind::kZapAll},
    });
    // Pages near the beginning of a place, since slots begin there.
    const auto page = gen::map(gen::tuple(gen::inRange<uint32_t>(0, 5),
                                          gen::inRange<uint32_t>(0, 1100)),
                               [](const std::tuple<uint32_t, uint32_t>& t) {
                                 return std::get<0>(t) * 4096 + std::get<1>(t);
                               });
    return gen::map(
        gen::tuple(kind, page, gen::inRange<uint32_t>(0, 1000),
                   gen::inRange<uint32_t>(0, 1000)),
        [](const std::tuple<Kind, uint32_t, uint32_t, uint32_t>& t) {
          return Operation{std::get<0>(t), std::get<1>(t), std::get<2>(t),
                           std::get<3>(t)};
        });
  }
};

}  // namespace rc

namespace mmu::testing {
namespace {

absl::Duration Budget() {
  const char* seconds = std::getenv("MODEL_TEST_SECONDS");
  return absl::Seconds(seconds == nullptr ? 8 : std::atoi(seconds));
}

// Covers: STAT-41
TEST(ModelTest, AVmBehavesAsTheModelAfterEveryStep) {
  const MonotonicTime end = MonotonicTime::Now() + Budget();
  do {
    ASSERT_TRUE(rc::check(
        "VM and model agree", [](const std::vector<Operation>& operations) {
          for (const auto pml : {VmConfig::Pml::kNo, VmConfig::Pml::kYes}) {
            const std::string problem = RunOperations(operations, 2, pml);
            if (!problem.empty()) RC_FAIL(problem);
          }
        }));
  } while (MonotonicTime::Now() < end);
}

// RapidCheck's own sequences are short. These begin with slots and are long.
TEST(ModelTest, LongRunsOnAPopulatedVmAgreeToo) {
  const MonotonicTime end = MonotonicTime::Now() + Budget();
  using Kind = Operation::Kind;
  for (uint64_t seed = 1; MonotonicTime::Now() < end; ++seed) {
    rc::Random random(seed);
    std::vector<Operation> operations = {
        {Kind::kCreate, 0, 0, 0},
        {Kind::kCreate, 1, 1, 1},
        {Kind::kCreate, 2, 2, static_cast<uint32_t>(seed % 6)}};
    const auto generator = rc::gen::arbitrary<Operation>();
    for (int i = 0; i < 150; ++i) {
      operations.push_back(generator(random.split(), 100).value());
    }
    const auto pml = seed % 2 == 0 ? VmConfig::Pml::kYes : VmConfig::Pml::kNo;
    ASSERT_EQ(RunOperations(operations, 2, pml), "") << "seed " << seed;
  }
}

// Shows that the comparison can fail: a lost mark must be found.
TEST(ModelTest, ALostMarkIsNoticedAndTheSequenceIsPrinted) {
  using Kind = Operation::Kind;
  std::vector<Operation> operations = {{Kind::kCreate, 0, 0, 0},
                                       {Kind::kWrite, 7, 0, 0},
                                       {Kind::kStart, 0, 0, 0}};
  for (int round = 0; round < 3; ++round) {
    operations.push_back({Kind::kWrite, 7, 0, 0});
    operations.push_back({Kind::kSeal, 0, 0, 0});
    operations.push_back({Kind::kClear, 0, 0, 0});
  }
  EXPECT_EQ(RunOperations(operations, 1), "");
  ArmDropOneMark(1);
  const std::string problem = RunOperations(operations, 1);
  EXPECT_EQ(DroppedMark(), "slot 0 gfn 0x7");
  ArmDropOneMark(0);
  EXPECT_THAT(problem, ::testing::HasSubstr("gfn 0x7 of slot 0 is writable"));
  EXPECT_THAT(problem,
              ::testing::HasSubstr("    {Operation::Kind::kClear, 0, 0, 0},"));
}

// The owner acknowledges pages whose copies have not arrived.
TEST(ModelTest, AnAcknowledgementWithoutACopyIsNoticed) {
  using Kind = Operation::Kind;
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0}, {Kind::kStart, 0, 0, 0},
      {Kind::kWrite, 7, 0, 0},  {Kind::kSeal, 0, 0, 0},
      {Kind::kClear, 0, 0, 0},  {Kind::kAcknowledge, 0, 0, 0}};
  EXPECT_EQ(RunOperations(operations, 1), "");
  EXPECT_THAT(RunOperations(operations, 1, VmConfig::Pml::kNo,
                            Mistake::kAcknowledgesBeforeItCopies),
              ::testing::HasSubstr("page 7 of slot 0 is delivered"));
}

// The same, but the owner acknowledges single pages.
TEST(ModelTest, AnAcknowledgementOfPagesWithoutACopyIsNoticed) {
  using Kind = Operation::Kind;
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0}, {Kind::kStart, 0, 0, 0},
      {Kind::kWrite, 7, 0, 0},  {Kind::kSeal, 0, 0, 0},
      {Kind::kClear, 0, 0, 0},  {Kind::kAckPages, 0, 0, 4}};
  EXPECT_EQ(RunOperations(operations, 1), "");
  EXPECT_THAT(RunOperations(operations, 1, VmConfig::Pml::kNo,
                            Mistake::kAcknowledgesBeforeItCopies),
              ::testing::HasSubstr("page 7 of slot 0 is delivered"));
}

// The next owner gets pages that a dead owner cleared but did not copy.
TEST(ModelTest, AnOwnerThatDiesBetweenClearAndCopyLosesNothing) {
  using Kind = Operation::Kind;
  EXPECT_EQ(RunOperations({{Kind::kCreate, 0, 0, 0},
                           {Kind::kStart, 0, 0, 0},
                           {Kind::kWrite, 7, 0, 0},
                           {Kind::kSeal, 0, 0, 0},
                           {Kind::kClear, 0, 0, 0},
                           {Kind::kTakeOver, 0, 1, 0},
                           {Kind::kSeal, 0, 0, 0},
                           {Kind::kClear, 0, 0, 0},
                           {Kind::kCopy, 0, 0, 0},
                           {Kind::kAcknowledge, 0, 0, 0},
                           {Kind::kStop, 0, 0, 0}},
                          1),
            "");
}

}  // namespace
}  // namespace mmu::testing
