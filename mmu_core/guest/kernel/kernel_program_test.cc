#include "mmu_core/guest/kernel/kernel_program.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/kernel/fake_guest_cpu.h"
#include "mmu_core/guest/trace_replay.h"
#include "mmu_core/guest/vector_trace_stream.h"
#include "mmu_core/guest/virtual_workload_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeGuestCpu;
using ::mmu::testing::RunAccesses;
using ::mmu::testing::UniformAccesses;

using LargePages = GuestKernelOptions::LargePages;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;

GpaSpace Space(uint64_t bytes = kMemory) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}

// Options with which a few accesses cause many changes of the guest's tables.
KernelProgramOptions Busy(const GuestKernelOptions& kernel) {
  return {.kernel = kernel,
          .check = ReadCheck::kYes,
          .accesses_per_switch = 20,
          .accesses_per_fork = 500,
          .accesses_per_unmap = 50,
          .accesses_per_protect = 20};
}

class KernelProgramTest : public ::testing::TestWithParam<GuestKernelOptions> {
};

INSTANTIATE_TEST_SUITE_P(
    Geometries, KernelProgramTest,
    ::testing::Values(
        GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kYes},
        GuestKernelOptions{PagingGeometry::kPae, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::kPae, LargePages::kYes},
        GuestKernelOptions{PagingGeometry::k4Level, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::k4Level, LargePages::kYes},
        GuestKernelOptions{PagingGeometry::k5Level, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::k5Level, LargePages::kYes}),
    [](const auto& row) {
      std::string name(row.param.geometry.name);
      name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
      return "Paging" + name +
             (row.param.large_pages == LargePages::kYes ? "Large" : "");
    });

TEST_P(KernelProgramTest, EveryReadFindsWhatTheProcessWrote) {
  for (const uint64_t pages : {uint64_t{0}, uint64_t{40}}) {
    FakeGuestCpu cpu(kMemory);
    KernelProgramOptions options = Busy(GetParam());
    options.pages = pages;
    const auto program = KernelProgram::Start(cpu, Space(), options);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_GE((*program)->program_pages(), 40u);
    const auto source = UniformAccesses(Space(), 4'000);
    const absl::Status status = RunAccesses(**program, *source);
    EXPECT_TRUE(status.ok()) << status;
    const absl::Status all = (*program)->Verify();
    EXPECT_TRUE(all.ok()) << all;
    const GuestKernelStats& stats = (*program)->kernel().stats();
    EXPECT_GT(stats.copies, 20u);
    EXPECT_GT(stats.context_switches, 50u);
    EXPECT_EQ(stats.large_splits > 0,
              GetParam().large_pages == LargePages::kYes);
    EXPECT_EQ((*program)->contents().size(), 3u);
  }
}

TEST_P(KernelProgramTest, ProgramsFillTheMemoryAndNeverExhaustIt) {
  FakeGuestCpu cpu(kMemory);
  KernelProgramOptions options = Busy(GetParam());
  options.accesses_per_fork = 4000;
  options.accesses_per_unmap = 0;
  const auto program = KernelProgram::Start(cpu, Space(), options);
  ASSERT_TRUE(program.ok()) << program.status();
  const uint64_t pages = (*program)->program_pages();
  // Every process writes to each page, so that no two share one.
  uint64_t word = 1;
  for (uint64_t i = 0; i < 4 * pages; ++i) {
    const absl::Status status =
        (*program)->Access({.address_bytes = ToGpa(Gfn(i)).value(),
                            .size_bytes = 8,
                            .kind = AccessKind::kWrite},
                           &word);
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_GT((*program)->kernel().frames().frames_in_use(), Space().pages() / 2);
}

TEST_P(KernelProgramTest, TheSeedDecidesAllThatHappens) {
  struct Outcome {
    std::vector<uint64_t> reads;
    std::map<int, ReferenceMemory> contents;
    uint64_t invlpgs = 0;
    uint64_t copies = 0;
    bool operator==(const Outcome&) const = default;
  };
  const auto run = [&](uint64_t seed) {
    FakeGuestCpu cpu(kMemory);
    KernelProgramOptions options = Busy(GetParam());
    options.seed = seed;
    const auto program = KernelProgram::Start(cpu, Space(), options);
    EXPECT_TRUE(program.ok());
    Outcome outcome;
    const auto source = UniformAccesses(Space(), 1'500);
    EXPECT_TRUE(RunAccesses(**program, *source, &outcome.reads).ok());
    outcome.contents = (*program)->contents();
    outcome.invlpgs = (*program)->kernel().cpu_stats().invlpgs;
    outcome.copies = (*program)->kernel().stats().copies;
    return outcome;
  };
  const Outcome first = run(1);
  EXPECT_TRUE(run(1) == first);
  EXPECT_FALSE(run(2) == first);
}

TEST_P(KernelProgramTest, PagesHaveDifferentPlacesInTheUserPart) {
  FakeGuestCpu cpu(kMemory);
  const auto program = KernelProgram::Start(cpu, Space(), Busy(GetParam()));
  ASSERT_TRUE(program.ok());
  std::set<Gva> seen;
  for (uint64_t page = 0; page < (*program)->program_pages(); ++page) {
    const Gva gva = (*program)->GvaOf(page);
    EXPECT_TRUE(seen.insert(gva).second);
    EXPECT_TRUE(IsPageAligned(gva.value()));
    EXPECT_LT(gva, GetParam().geometry.user_end);
    EXPECT_GT(gva, Gva(0));
  }
}

// Programs read the same words in every paging mode, with and without large
// pages.
TEST(KernelProgramsTest, ReadTheSameUnderAnyPaging) {
  std::vector<uint64_t> first;
  for (const PagingGeometry& geometry :
       {PagingGeometry::k32Bit, PagingGeometry::kPae, PagingGeometry::k4Level,
        PagingGeometry::k5Level}) {
    for (const LargePages large : {LargePages::kNo, LargePages::kYes}) {
      FakeGuestCpu cpu(2 * kMemory);
      KernelProgramOptions options =
          Busy({.geometry = geometry, .large_pages = large});
      options.pages = 700;
      const auto program =
          KernelProgram::Start(cpu, Space(2 * kMemory), options);
      ASSERT_TRUE(program.ok()) << program.status();
      std::vector<uint64_t> reads;
      const auto source = UniformAccesses(Space(), 1'500);
      ASSERT_TRUE(RunAccesses(**program, *source, &reads).ok());
      if (first.empty()) first = reads;
      EXPECT_EQ(reads, first) << geometry.name;
    }
  }
}

TEST(KernelProgramsTest, TracesRunInThem) {
  FakeGuestCpu cpu(kMemory);
  const auto program =
      KernelProgram::Start(cpu, Space(), Busy(GuestKernelOptions{}));
  ASSERT_TRUE(program.ok());
  std::vector<GuestAccess> trace;
  for (uint64_t i = 0; i < 5'000; ++i) {
    trace.push_back({.address_bytes = 0x7fff'0000'0000 + i * 37 % 100'003,
                     .size_bytes = static_cast<uint32_t>(1 + i % 64),
                     .kind = static_cast<AccessKind>(i % 3)});
  }
  TraceReplaySource source(
      std::make_unique<VectorTraceStream>(
          std::make_shared<const std::vector<GuestAccess>>(std::move(trace))),
      Space(), {.repeat_count = 3});
  const absl::Status status = RunAccesses(**program, source);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE((*program)->Verify().ok());
}

// Returns a wrong word for the `count`th user read.
class WrongCpu : public FakeGuestCpu {
 public:
  using FakeGuestCpu::FakeGuestCpu;
  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override {
    const Outcome outcome =
        FakeGuestCpu::Access(gva, size_bytes, kind, privilege, word, fault);
    if (outcome == Outcome::kDone && privilege == Privilege::kUser &&
        kind == AccessKind::kRead && --reads_left == 0) {
      *word ^= 1;
    }
    return outcome;
  }
  int reads_left = 0;
};

TEST(KernelProgramsTest, AWrongWordIsNoticed) {
  WrongCpu cpu(kMemory);
  const auto program =
      KernelProgram::Start(cpu, Space(), Busy(GuestKernelOptions{}));
  ASSERT_TRUE(program.ok());
  cpu.reads_left = 300;
  const auto source = UniformAccesses(Space(), 2'000);
  EXPECT_EQ(RunAccesses(**program, *source).code(),
            absl::StatusCode::kDataLoss);
  cpu.reads_left = 300;
  EXPECT_EQ((*program)->Verify().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE((*program)->Verify().ok());
}

TEST(KernelProgramsTest, TooLittleMemoryIsRefused) {
  FakeGuestCpu cpu(kMemory);
  EXPECT_EQ(
      KernelProgram::Start(cpu, Space(50 * kPageSize), {}).status().code(),
      absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KernelProgram::Start(cpu, Space(), {.pages = 3000}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(
      KernelProgram::Start(cpu, Space(), {.processes = 0}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmu
