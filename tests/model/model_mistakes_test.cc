// Shows that the comparison with the model can fail: mistakes of the MMU (see
// testing/fault_injection.h), of the owner of a log and of a guest are found.

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/fault_injection.h"
#include "tests/model/model_config.h"
#include "tests/model/operation.h"
#include "tests/model/run_operations.h"

namespace mmu::testing {
namespace {

using Kind = Operation::Kind;
using ::testing::HasSubstr;

// kMapPage: full rights, to the first page of slot 3's data and to the fourth.
constexpr Operation kMapFirst = {Kind::kMapPage, 0, 128, 232};
constexpr Operation kMapFourth = {Kind::kMapPage, 9, 128, 232};

ModelConfig ConfigOf(MmuMode mmu, EntryFormat format = EntryFormat::kNpt) {
  ModelConfig config;
  config.vm.mmu = mmu;
  config.vm.format = format;
  config.vcpus = 1;
  return config;
}
ModelConfig Tdp() { return ConfigOf(MmuMode::kTdp, EntryFormat::kEpt); }
RunOptions With(OwnerMistake mistake) {
  return {.check_every = 1,
          .mistakes = {.owner = mistake, .guest = GuestMistake::kNone}};
}
RunOptions With(GuestMistake mistake) {
  return {.check_every = 1,
          .mistakes = {.owner = OwnerMistake::kNone, .guest = mistake}};
}

TEST(ModelMistakesTest, ALostMarkIsNoticedAndTheSequenceIsPrinted) {
  std::vector<Operation> operations = {{Kind::kCreate, 0, 0, 0},
                                       {Kind::kWrite, 7, 0, 0},
                                       {Kind::kStart, 0, 0, 0}};
  for (int round = 0; round < 3; ++round) {
    operations.push_back({Kind::kWrite, 7, 0, 0});
    operations.push_back({Kind::kSeal, 0, 0, 0});
    operations.push_back({Kind::kClear, 0, 0, 0});
  }
  EXPECT_EQ(RunOperations(operations, Tdp()), "");
  ArmDropOneMark(1);
  const std::string problem = RunOperations(operations, Tdp());
  EXPECT_EQ(DroppedMark(), "slot 0 gfn 0x7");
  ArmDropOneMark(0);
  EXPECT_THAT(problem, HasSubstr("gfn 0x7 of slot 0 is writable"));
  EXPECT_THAT(problem, HasSubstr("    {Operation::Kind::kClear, 0, 0, 0},"));
}

// The owner acknowledges pages whose copies have not arrived.
TEST(ModelMistakesTest, AnAcknowledgementWithoutACopyIsNoticed) {
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0}, {Kind::kStart, 0, 0, 0},
      {Kind::kWrite, 7, 0, 0},  {Kind::kSeal, 0, 0, 0},
      {Kind::kClear, 0, 0, 0},  {Kind::kAcknowledge, 0, 0, 0}};
  EXPECT_EQ(RunOperations(operations, Tdp()), "");
  EXPECT_THAT(RunOperations(operations, Tdp(),
                            With(OwnerMistake::kAcknowledgesBeforeItCopies)),
              HasSubstr("page 7 of slot 0 is delivered"));
}

// The same, but the owner acknowledges single pages.
TEST(ModelMistakesTest, AnAcknowledgementOfPagesWithoutACopyIsNoticed) {
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0}, {Kind::kStart, 0, 0, 0},
      {Kind::kWrite, 7, 0, 0},  {Kind::kSeal, 0, 0, 0},
      {Kind::kClear, 0, 0, 0},  {Kind::kAckPages, 0, 0, 4}};
  EXPECT_EQ(RunOperations(operations, Tdp()), "");
  EXPECT_THAT(RunOperations(operations, Tdp(),
                            With(OwnerMistake::kAcknowledgesBeforeItCopies)),
              HasSubstr("page 7 of slot 0 is delivered"));
}

// The next owner gets pages that a dead owner cleared but did not copy.
TEST(ModelMistakesTest, AnOwnerThatDiesBetweenClearAndCopyLosesNothing) {
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
                          Tdp()),
            "");
}

// A page that is sealed again is copied after its next clear. So that clear may
// forget a write that only the tables know of. (A comparison of everything
// after each operation would collect what the tables know.)
TEST(ModelMistakesTest, AReturnedPageThatWasWrittenNeedsNoSecondReport) {
  ModelConfig config = ConfigOf(MmuMode::kStage2, EntryFormat::kEpt);
  config.vm.stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
  config.vm.stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
  EXPECT_EQ(RunOperations({{Kind::kCreate, 0, 0, 3},
                           {Kind::kStart, 0, 0, 0},
                           {Kind::kWrite, 7, 0, 0},
                           {Kind::kSeal, 0, 0, 0},
                           {Kind::kClear, 0, 0, 0},
                           {Kind::kWrite, 7, 0, 0},
                           {Kind::kTakeOver, 0, 1, 0},
                           {Kind::kClear, 0, 0, 0},
                           {Kind::kSeal, 0, 0, 0},
                           {Kind::kWrite, 7, 0, 0},
                           {Kind::kSeal, 0, 0, 0},
                           {Kind::kClear, 0, 0, 0},
                           {Kind::kCopy, 0, 0, 0},
                           {Kind::kAcknowledge, 0, 0, 0},
                           {Kind::kStop, 0, 0, 0}},
                          config, {.check_every = 100}),
            "");
}

// A write that no vCPU makes is in the log of a VM with dirty rings, too.
// Covers: DL-46
TEST(ModelMistakesTest, AWriteByNoVcpuIsInTheCompanionBitmap) {
  ModelConfig config = Tdp();
  config.vm.dirty_ring_entries = 256;
  config.vm.companion_bitmap = VmConfig::CompanionBitmap::kYes;
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0},      {Kind::kStart, 0, 0, 0},
      {Kind::kHostWrite, 7, 0, 0},   {Kind::kPeek, 0, 0, 0},
      {Kind::kSeal, 0, 0, 0},        {Kind::kClear, 0, 0, 0},
      {Kind::kCopy, 0, 0, 0},        {Kind::kHostWrite, 7, 0, 0},
      {Kind::kAcknowledge, 0, 0, 0}, {Kind::kSeal, 0, 0, 0},
      {Kind::kClear, 0, 0, 0}};
  EXPECT_EQ(RunOperations(operations, config), "");
}

// --- A guest with tables of its own. ---

struct Guest {
  const char* name;
  MmuMode mmu;
  EntryFormat format;
};
std::ostream& operator<<(std::ostream& os, const Guest& guest) {
  return os << guest.name;
}

class GuestMistakesTest : public ::testing::TestWithParam<Guest> {
 protected:
  static ModelConfig Config() {
    return ConfigOf(GetParam().mmu, GetParam().format);
  }
};

// The guest changes an entry and believes that it has invalidated the old one,
// which the vCPU still uses.
TEST_P(GuestMistakesTest, AMissingInvalidationIsNoticed) {
  const std::vector<Operation> operations = {kMapFirst,
                                             {Kind::kUseWrite, 0, 0, 0},
                                             kMapFourth,
                                             {Kind::kInvalidatePage, 0, 0, 0},
                                             {Kind::kUseRead, 0, 0, 0}};
  EXPECT_EQ(RunOperations(operations, Config()), "");
  EXPECT_THAT(RunOperations(operations, Config(),
                            With(GuestMistake::kForgetsToInvalidate)),
              HasSubstr("and no earlier translation explains it"));
}

// The MMU lets the guest write its table without the note that the shadow page
// has to be synchronised.
TEST_P(GuestMistakesTest, ATableThatIsNotMarkedUnsyncIsNoticed) {
  const std::vector<Operation> operations = {kMapFirst,
                                             {Kind::kUseWrite, 0, 0, 0},
                                             kMapFourth,
                                             {Kind::kInvalidatePage, 0, 0, 0},
                                             {Kind::kUseRead, 0, 0, 0}};
  ArmSkipOneUnsync(1);
  const std::string problem = RunOperations(operations, Config());
  ArmSkipOneUnsync(0);
  EXPECT_NE(problem, "");
}

// Random operations find it as well, and the sequence is shortened.
TEST_P(GuestMistakesTest, AMissingInvalidationIsFoundAtRandomAndShortened) {
  const RunOptions options = {
      .check_every = 500,
      .mistakes = {.owner = OwnerMistake::kNone,
                   .guest = GuestMistake::kForgetsToInvalidate}};
  ModelConfig config = Config();
  config.vcpus = 2;
  const std::vector<Operation> operations = RandomOperations(1, 20'000, config);
  ASSERT_TRUE(FindDifference(operations, config, options).has_value());
  const std::vector<Operation> fewest =
      Minimise(operations, config, options, absl::Seconds(60));
  EXPECT_LE(fewest.size(), 12u);
  EXPECT_NE(RunOperations(fewest, config, options), "");
  EXPECT_EQ(RunOperations(fewest, config), "");
}

INSTANTIATE_TEST_SUITE_P(
    Guests, GuestMistakesTest,
    ::testing::Values(Guest{"Shadow", MmuMode::kShadow, EntryFormat::kNpt},
                      Guest{"Nested", MmuMode::kNested, EntryFormat::kEpt}),
    [](const auto& guest) { return std::string(guest.param.name); });

// --- A skipped flush, on each MMU. ---

class SkippedFlushTest : public ::testing::TestWithParam<Guest> {};

// The log begins without a flush, so a write is not in it.
TEST_P(SkippedFlushTest, IsNoticedWhenTheLogBegins) {
  const ModelConfig config = ConfigOf(GetParam().mmu, GetParam().format);
  const bool tables = GuestHasTables(config.vm);
  const Operation write = tables ? Operation{Kind::kUseWrite, 0, 0, 0}
                                 : Operation{Kind::kWrite, 7, 0, 0};
  const std::vector<Operation> operations = {
      {Kind::kCreate, 0, 0, 0}, kMapFirst, write,
      {Kind::kStart, 4, 0, 0},  write,     {Kind::kSeal, 0, 0, 0}};
  EXPECT_EQ(RunOperations(operations, config), "");
  // Only results are compared, not the auditor's findings. Flushes for the
  // guest's tables have the same reason and come first; the last flush is that
  // of the log.
  std::vector<std::string> problems;
  for (uint64_t skipped = SkippedFlushes();; ++skipped) {
    ArmSkipOneFlush(FlushReason::kWriteProtect, problems.size() + 1);
    const std::string problem = RunOperations(
        operations, config, {.check_every = 1000, .mistakes = {}});
    ArmSkipOneFlush(FlushReason::kWriteProtect, 0);
    if (SkippedFlushes() == skipped) break;
    problems.push_back(problem);
  }
  ASSERT_FALSE(problems.empty());
  EXPECT_THAT(problems.back(), HasSubstr("was lost"));
}

INSTANTIATE_TEST_SUITE_P(
    Mmus, SkippedFlushTest,
    ::testing::Values(Guest{"Tdp", MmuMode::kTdp, EntryFormat::kEpt},
                      Guest{"TdpShadow", MmuMode::kTdpShadow,
                            EntryFormat::kEpt},
                      Guest{"Shadow", MmuMode::kShadow, EntryFormat::kNpt}),
    [](const auto& guest) { return std::string(guest.param.name); });

}  // namespace
}  // namespace mmu::testing
