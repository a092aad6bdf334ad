#include "mmu_core/guest/hypervisor/l2_program.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"
#include "mmu_core/guest/virtual_workload_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::mmu::testing::RunAccesses;
using ::mmu::testing::UniformAccesses;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;

GpaSpace Space(uint64_t bytes = kMemory) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}

// Options with which a few accesses cause many changes of L1's tables.
L2ProgramOptions Busy(const L1HypervisorOptions& hypervisor) {
  return {.hypervisor = hypervisor,
          .check = ReadCheck::kYes,
          .accesses_per_unmap = 50,
          .accesses_per_protect = 20,
          .accesses_per_remap = 50,
          .accesses_per_promote = 200,
          .accesses_per_demote = 200,
          .accesses_per_take_dirty = 1000};
}

struct Case {
  std::string name;
  L1HypervisorOptions options;
};

class L2ProgramTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Tables, L2ProgramTest,
    ::testing::Values(
        Case{"Ept", {}}, Case{"EptLarge", {.max_page = Level::k1G}},
        Case{"EptAccessedDirty", {.ad_bits = true}},
        Case{"EptAccessedDirtyLarge",
             {.ad_bits = true, .max_page = Level::k2M}},
        Case{"EptExecOnlyFiveLevels",
             {.root_level = Level::k256T, .exec_only = true}},
        Case{"Npt", {.tables = GuestTables::kNpt}},
        Case{"NptLarge", {.tables = GuestTables::kNpt, .max_page = Level::k2M}},
        Case{"NptFiveLevels",
             {.tables = GuestTables::kNpt, .root_level = Level::k256T}}),
    [](const auto& row) { return row.param.name; });

TEST_P(L2ProgramTest, EveryReadFindsWhatL2Wrote) {
  for (const uint64_t pages : {uint64_t{0}, uint64_t{512}}) {
    FakeL1Cpu cpu(kMemory);
    L2ProgramOptions options = Busy(GetParam().options);
    options.pages = pages;
    const auto program = L2Program::Start(cpu, Space(), options);
    ASSERT_TRUE(program.ok()) << program.status();
    const auto source = UniformAccesses(Space(), 5'000);
    const absl::Status status = RunAccesses(**program, *source);
    EXPECT_TRUE(status.ok()) << status;
    const absl::Status all = (*program)->Verify();
    EXPECT_TRUE(all.ok()) << all;
    const L1HypervisorStats& stats = (*program)->hypervisor().stats();
    EXPECT_GT(stats.invalidations, 100u);
    EXPECT_GT(stats.splits, 0u);
    // If large pages take all memory, no 2 MiB are left into which small pages
    // could be merged.
    EXPECT_EQ(stats.merges > 0,
              pages != 0 || GetParam().options.max_page == Level::k4K);
  }
}

TEST_P(L2ProgramTest, L2FillsTheMemoryAndNeverExhaustsIt) {
  FakeL1Cpu cpu(kMemory);
  const auto program = L2Program::Start(cpu, Space(), Busy(GetParam().options));
  ASSERT_TRUE(program.ok());
  const uint64_t pages = (*program)->program_pages();
  EXPECT_GT(pages, Space().pages() * 8 / 10);
  uint64_t word = 1;
  for (uint64_t i = 0; i < 2 * pages; ++i) {
    const absl::Status status =
        (*program)->Access({.address_bytes = ToGpa(Gfn(i)).value(),
                            .size_bytes = 8,
                            .kind = AccessKind::kWrite},
                           &word);
    ASSERT_TRUE(status.ok()) << status;
  }
}

TEST_P(L2ProgramTest, TheSeedDecidesAllThatHappens) {
  struct Outcome {
    std::vector<uint64_t> reads;
    ReferenceMemory contents;
    uint64_t invalidations = 0;
    bool operator==(const Outcome&) const = default;
  };
  const auto run = [&](uint64_t seed) {
    FakeL1Cpu cpu(kMemory);
    L2ProgramOptions options = Busy(GetParam().options);
    options.seed = seed;
    const auto program = L2Program::Start(cpu, Space(), options);
    EXPECT_TRUE(program.ok());
    Outcome outcome;
    const auto source = UniformAccesses(Space(), 1'500);
    EXPECT_TRUE(RunAccesses(**program, *source, &outcome.reads).ok());
    outcome.contents = (*program)->contents();
    outcome.invalidations = (*program)->hypervisor().stats().invalidations;
    return outcome;
  };
  const Outcome first = run(1);
  EXPECT_TRUE(run(1) == first);
  EXPECT_FALSE(run(2) == first);
}

// Returns a wrong word for one of L2's reads.
class WrongCpu : public FakeL1Cpu {
 public:
  using FakeL1Cpu::FakeL1Cpu;
  Outcome L2Access(const NestedAccess& access, uint64_t* word,
                   NestedExit* exit) override {
    const Outcome outcome = FakeL1Cpu::L2Access(access, word, exit);
    if (outcome == Outcome::kDone && access.kind == AccessKind::kRead &&
        --reads_left == 0) {
      *word ^= 1;
    }
    return outcome;
  }
  int reads_left = 0;
};

TEST(L2ProgramsTest, AWrongWordIsNoticed) {
  WrongCpu cpu(kMemory);
  const auto program = L2Program::Start(cpu, Space(), Busy({}));
  ASSERT_TRUE(program.ok());
  cpu.reads_left = 300;
  const auto source = UniformAccesses(Space(), 2'000);
  EXPECT_EQ(RunAccesses(**program, *source).code(),
            absl::StatusCode::kDataLoss);
  cpu.reads_left = 300;
  EXPECT_EQ((*program)->Verify().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE((*program)->Verify().ok());
}

TEST(L2ProgramsTest, TooLittleMemoryIsRefused) {
  FakeL1Cpu cpu(kMemory);
  EXPECT_EQ(L2Program::Start(cpu, Space(2 * kMiB), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(L2Program::Start(cpu, Space(), {.pages = 600}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      L2Program::Start(cpu, Space(), {.pages = 10 * 1024}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

// L2 gets pages of 1 GiB only if they can hold all of its memory.
TEST(L2ProgramsTest, L2HasPagesOf1GWhereTheyFit) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  FakeL1Cpu cpu(2 * kGiB + 64 * kMiB);
  const auto program =
      L2Program::Start(cpu, Space(2 * kGiB + 64 * kMiB),
                       {.hypervisor = {.max_page = Level::k1G}});
  ASSERT_TRUE(program.ok());
  EXPECT_EQ((*program)->program_pages(), 2 * kGiB / kPageSize);
  uint64_t word = 7;
  const absl::Status status = (*program)->Access(
      {.address_bytes = kGiB + 8, .size_bytes = 8, .kind = AccessKind::kWrite},
      &word);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ((*program)->hypervisor().stats().large_pages, 1u);
  const absl::StatusOr<Gfn> frame = (*program)->hypervisor().FrameOf(Gpa(kGiB));
  ASSERT_TRUE(frame.ok());
  EXPECT_TRUE(IsAligned(*frame, Level::k1G));
}

}  // namespace
}  // namespace mmu
