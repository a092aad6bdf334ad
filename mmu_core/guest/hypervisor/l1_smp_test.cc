// An L1 hypervisor on two processors with two L2 guests, step by step.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/flat_memory.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/guest_paging/control_registers.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::mmu::testing::FlatMemory;
using ::testing::ElementsAre;

using Invept = L1HypervisorOptions::Invept;
using Rights = L1Hypervisor::Rights;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;

Gpa Page(uint64_t i) { return Gpa(0x4000'0000 + i * kPageSize); }

struct Case {
  std::string name;
  L1HypervisorOptions options;
};

// Both processors are run by the test's thread. When processor 0 waits for
// processor 1, `at_pause` runs.
class L1SmpTest : public ::testing::TestWithParam<Case> {
 protected:
  L1SmpTest() { EXPECT_TRUE(l1_0_.Boot().ok()); }

  // Makes processor 1 run the guest.
  void Run(int guest, Gpa page) {
    l1_1_.Select(guest);
    Read(l1_1_, page);
  }
  static void Write(L1Hypervisor& l1, Gpa nested, uint64_t value) {
    const absl::Status status = l1.Access(nested, AccessKind::kWrite, &value);
    EXPECT_TRUE(status.ok()) << status;
  }
  static uint64_t Read(L1Hypervisor& l1, Gpa nested) {
    uint64_t word = ~uint64_t{0};
    const absl::Status status = l1.Access(nested, AccessKind::kRead, &word);
    EXPECT_TRUE(status.ok()) << status;
    return word;
  }
  // At the pause processor 1 writes to page 0, which is unmapped by then,
  // through the translation that it still has. The next write would find no
  // page.
  void WriteThroughAnOldTranslation(uint64_t value) {
    at_pause_ = [this, value] {
      uint64_t word = value;
      ASSERT_EQ(
          cpu_1_.L2Access({.nested_gpa = Page(0), .kind = AccessKind::kWrite},
                          &word, nullptr),
          L1Cpu::Outcome::kDone);
      l1_1_.Rest();
    };
  }
  Gfn FrameOf(Gpa nested) { return l1_0_.FrameOf(nested).value_or(Gfn(0)); }

  FlatMemory memory_{kMemory};
  int pauses_ = 0;
  std::function<void()> at_pause_;
  FakeL1Cpu cpu_0_{memory_, [this](FakeL1Cpu::Turn why) {
                     if (why != FakeL1Cpu::Turn::kPause) return;
                     MMU_CHECK(++pauses_ < 100);  // waits for ever
                     if (at_pause_ != nullptr) at_pause_();
                   }};
  FakeL1Cpu cpu_1_{memory_, nullptr};
  L1Shared shared_{*GpaSpace::Create({GfnRange::Of(Gfn(0), 6144)}),
                   GetParam().options, /*cpus=*/2, /*guests=*/2};
  L1Hypervisor l1_0_{cpu_0_, shared_, 0};
  L1Hypervisor l1_1_{cpu_1_, shared_, 1};
};

INSTANTIATE_TEST_SUITE_P(
    Tables, L1SmpTest,
    ::testing::Values(Case{"Ept", {}},
                      Case{"EptGlobal", {.invept = Invept::kGlobal}},
                      Case{"EptAccessedDirty", {.ad_bits = true}},
                      Case{"Npt", {.tables = GuestTables::kNpt}}),
    [](const auto& row) { return row.param.name; });

TEST_P(L1SmpTest, AFrameIsReusedWhenTheProcessorThatRunsTheGuestInvalidated) {
  Write(l1_0_, Page(0), 1);
  const Gfn frame = FrameOf(Page(0));
  Run(0, Page(0));
  at_pause_ = [&] {
    EXPECT_EQ(shared_.frames.references(frame), 1) << "still in use";
    if (pauses_ < 3) return;
    // The interrupt comes before this access.
    EXPECT_EQ(Read(l1_1_, Page(1)), 0u);
  };
  // The access of processor 1 needs L1's lock only to map a page.
  Write(l1_1_, Page(1), 0);
  ASSERT_TRUE(l1_0_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(pauses_, 3);
  EXPECT_EQ(shared_.frames.references(frame), 0);
  EXPECT_EQ(l1_1_.stats().interrupts, 1u);
  EXPECT_EQ(Read(l1_1_, Page(0)), 0u);
}

TEST_P(L1SmpTest, AProcessorInL1IsNotWaitedForAndInvalidatesAtItsNextEntry) {
  Write(l1_0_, Page(0), 1);
  Run(0, Page(0));
  l1_1_.Rest();
  ASSERT_TRUE(l1_0_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(pauses_, 0);
  EXPECT_EQ(Read(l1_1_, Page(0)), 0u);
  EXPECT_EQ(l1_1_.stats().invalidations, 1u);
  EXPECT_EQ(l1_1_.stats().interrupts, 0u);
}

TEST_P(L1SmpTest, AProcessorThatRunsAnotherGuestIsNotWaitedFor) {
  Write(l1_0_, Page(0), 1);
  Run(0, Page(0));
  Run(1, Page(0));
  const uint64_t walks = cpu_1_.walks();
  ASSERT_TRUE(l1_0_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(pauses_, 0);
  Read(l1_1_, Page(0));
  EXPECT_EQ(cpu_1_.walks(), walks) << "the other guest lost nothing";
  EXPECT_EQ(l1_1_.stats().invalidations, 0u);
  l1_1_.Select(0);
  EXPECT_EQ(Read(l1_1_, Page(0)), 0u);
  EXPECT_EQ(l1_1_.stats().invalidations, 1u);
}

TEST_P(L1SmpTest, TheInvalidationCoversOneGuest) {
  for (const int guest : {0, 1}) {
    l1_0_.Select(guest);
    Write(l1_0_, Page(0), 1);
    Write(l1_0_, Page(1), 2);
  }
  l1_0_.Select(0);
  ASSERT_TRUE(l1_0_.Unmap(Page(0), kPageSize).ok());
  Read(l1_0_, Page(0));
  const uint64_t walks = cpu_0_.walks();
  l1_0_.Select(1);
  EXPECT_EQ(Read(l1_0_, Page(0)), 1u);
  EXPECT_EQ(Read(l1_0_, Page(1)), 2u);
  const bool all = GetParam().options.invept == Invept::kGlobal;
  EXPECT_EQ(cpu_0_.walks() - walks, all ? 2u : 0u);
}

TEST_P(L1SmpTest, ARightThatIsTakenAwayIsTakenFromAllProcessors) {
  Write(l1_0_, Page(0), 1);
  l1_1_.Select(0);
  Write(l1_1_, Page(0), 1);
  at_pause_ = [&] { Read(l1_1_, Page(0)); };
  ASSERT_TRUE(l1_0_.Protect(Page(0), kPageSize, Rights::kReadExec).ok());
  EXPECT_EQ(pauses_, 1);
  uint64_t word = 2;
  EXPECT_EQ(l1_1_.Access(Page(0), AccessKind::kWrite, &word).code(),
            absl::StatusCode::kPermissionDenied);
  // Nothing is owed for a right that is granted.
  Read(l1_1_, Page(0));
  ASSERT_TRUE(l1_0_.Protect(Page(0), kPageSize, Rights::kAll).ok());
  EXPECT_EQ(pauses_, 1);
  Write(l1_1_, Page(0), 2);
  EXPECT_EQ(l1_1_.stats().invalidations, 1u);
}

TEST_P(L1SmpTest, APageMovesWithoutTheLossOfAWriteByAnotherProcessor) {
  Write(l1_0_, Page(0), 1);
  l1_1_.Select(0);
  Write(l1_1_, Page(0), 2);
  WriteThroughAnOldTranslation(3);
  const Gfn before = FrameOf(Page(0));
  ASSERT_TRUE(l1_0_.Remap(Page(0)).ok());
  EXPECT_NE(FrameOf(Page(0)), before);
  EXPECT_EQ(pauses_, 1);
  EXPECT_EQ(Read(l1_0_, Page(0)), 3u);
  EXPECT_EQ(Read(l1_1_, Page(0)), 3u);
}

TEST_P(L1SmpTest, PagesAreMergedWithoutTheLossOfAWriteByAnotherProcessor) {
  Write(l1_0_, Page(0), 1);
  l1_1_.Select(0);
  Write(l1_1_, Page(0), 2);
  WriteThroughAnOldTranslation(3);
  ASSERT_TRUE(l1_0_.Promote(Page(0)).ok());
  EXPECT_EQ(pauses_, 1);
  EXPECT_EQ(Read(l1_1_, Page(0)), 3u);
}

// Processor 1 has cached the link to the empty table. The frame of the table
// becomes a page, which L2 fills with an entry that maps L1's frame 0.
TEST_P(L1SmpTest, AnEmptyTableIsReusedWhenNoProcessorCanReachIt) {
  Write(l1_0_, Page(0), 1);
  ASSERT_TRUE(l1_0_.Unmap(Page(0), kPageSize).ok());
  Run(0, Page(512));
  cpu_1_.Speculate(Page(0));
  at_pause_ = [&] { Read(l1_1_, Page(512)); };
  ASSERT_TRUE(l1_0_.FreeTable(Page(0)).ok());
  EXPECT_EQ(pauses_, 1);
  EXPECT_EQ(l1_0_.stats().frees, 1u);
  Write(l1_0_, Page(1024), 7);
  ASSERT_NE(memory_.WordAt(Gpa(0)), 0u);
  EXPECT_EQ(Read(l1_1_, Page(0)), 0u);
  EXPECT_EQ(l1_0_.FreeTable(Page(2048)).code(),
            absl::StatusCode::kFailedPrecondition)
      << "there is no table";
}

TEST_P(L1SmpTest, ATableWithPagesIsNotFreed) {
  Write(l1_0_, Page(0), 1);
  EXPECT_EQ(l1_0_.FreeTable(Page(0)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Read(l1_0_, Page(0)), 1u);
}

// A processor that knows a page as dirty sets no Dirty bit, so it must forget
// that when the log is taken.
TEST_P(L1SmpTest, TheDirtyLogHasTheWritesOfAllProcessors) {
  Write(l1_0_, Page(0), 1);
  l1_1_.Select(0);
  Write(l1_1_, Page(0), 2);
  Write(l1_1_, Page(1), 2);
  l1_1_.Rest();
  const std::vector<Gfn> both = {ToGfn(Page(0)), ToGfn(Page(1))};
  EXPECT_EQ(l1_0_.TakeDirty().value(), both);
  Write(l1_1_, Page(0), 3);
  l1_1_.Rest();
  EXPECT_THAT(l1_0_.TakeDirty().value(), ElementsAre(ToGfn(Page(0))));
}

// Processor 1 sets Dirty between L1's load and its store, which overwrites it.
TEST_P(L1SmpTest, ADirtyBitThatIsSetDuringAChangeIsNotLost) {
  Read(l1_0_, Page(0));
  ASSERT_TRUE(l1_0_.TakeDirty().ok());
  l1_1_.Select(0);
  Read(l1_1_, Page(0));
  l1_1_.Rest();
  int accesses = 0;
  bool written = false;
  FakeL1Cpu cpu(memory_, [&](FakeL1Cpu::Turn why) {
    if (why == FakeL1Cpu::Turn::kPause) return l1_1_.Rest();
    // The store of the new entry is the fifth access: four levels are loaded.
    if (++accesses != 5) return;
    uint64_t word = 9;
    NestedExit exit;
    NestedPaging paging = {.tables = GetParam().options.tables,
                           .root = l1_0_.root(),
                           .ept = {.ad_bits = GetParam().options.ad_bits},
                           .l1 = {}};
    paging.l1 = {
        .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
    FakeL1Cpu other(memory_, nullptr);
    other.EnterL2(paging);
    written =
        other.L2Access({.nested_gpa = Page(0), .kind = AccessKind::kWrite},
                       &word, &exit) == L1Cpu::Outcome::kDone;
  });
  L1Hypervisor changes(cpu, shared_, 0);
  changes.Select(0);
  ASSERT_TRUE(changes.Protect(Page(0), kPageSize, Rights::kRead).ok());
  // Without Dirty bits L1 has write-protected the page to log it.
  const bool has_dirty_bits = GetParam().options.ad_bits ||
                              GetParam().options.tables == GuestTables::kNpt;
  EXPECT_EQ(written, has_dirty_bits);
  if (!written) return;
  EXPECT_THAT(l1_0_.TakeDirty().value(), ElementsAre(ToGfn(Page(0))));
}

TEST_P(L1SmpTest, AProcessorThatFailsInTheMiddleEndsTheOthers) {
  Write(l1_0_, Page(0), 1);
  cpu_0_.FailAfter(2);
  EXPECT_EQ(l1_0_.Remap(Page(0)).message(), "the host is out of memory");
  uint64_t word = 0;
  l1_1_.Select(0);
  EXPECT_EQ(l1_1_.Access(Page(1), AccessKind::kRead, &word).code(),
            absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace mmu
