// Page counts before, during and after dirty logging: all pages are huge, then
// small, then huge again.

#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "tests/selftests/log_harvester.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Harvest;
using ::mmu::testing::LogMode;
using ::mmu::testing::MakePmlVm;
using ::mmu::testing::MakeRingVm;
using ::mmu::testing::MakeVm;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::StopLog;
using ::mmu::testing::UsesRing;
using ::mmu::testing::Write;
using ::testing::TestWithParam;
using ::testing::Values;

constexpr uint64_t kGiB = uint64_t{1} << 30;
constexpr int kVcpus = 2;

struct Counts {
  uint64_t small;
  uint64_t medium;
  uint64_t large;
  friend bool operator==(const Counts&, const Counts&) = default;
};

Counts CountsOf(const Vm& vm) {
  const VmStatsSnapshot stats = vm.Stats();
  return {stats.pages_4k, stats.pages_2m, stats.pages_1g};
}

enum class InitialState { kManualCapsOff, kInitiallySet };

class PageSplittingTest
    : public TestWithParam<
          std::tuple<Level, InitialState, LogMode, VmConfig::Pml>> {
 protected:
  // Two slots with one page size. A slot has 2 GiB of the largest pages. It has
  // no contents, which do not matter here.
  static constexpr uint64_t kSlotBytes = 2 * kGiB;
  static constexpr uint64_t kPages = 2 * kSlotBytes / kPageSize;

  static std::unique_ptr<Vm> TwoSlotVm(Level host, LogMode mode,
                                       VmConfig::Pml pml) {
    const std::vector<MemslotConfig> slots = {
        Slot(0, kGiB, kSlotBytes, host, BackingKind::kMetadataOnly),
        Slot(1, 4 * kGiB, kSlotBytes, host, BackingKind::kMetadataOnly)};
    // Room for the entries of one pass.
    constexpr uint32_t kRingEntries = 16384;
    if (pml == VmConfig::Pml::kYes) {
      return MakePmlVm(slots, kVcpus, UsesRing(mode) ? kRingEntries : 0);
    }
    return UsesRing(mode) ? MakeRingVm(slots, kRingEntries, kVcpus)
                          : MakeVm(slots, kVcpus);
  }
  // Each vCPU writes to its slot, one access per `step`.
  static void Populate(Vm& vm, uint64_t step) {
    for (int slot = 0; slot < 2; ++slot) {
      const uint64_t base = slot == 0 ? kGiB : 4 * kGiB;
      for (uint64_t at = 0; at < kSlotBytes; at += step) {
        ASSERT_EQ(Write(vm, base + at, 1, slot % kVcpus), AccessOutcome::kDone);
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(
    HostPages, PageSplittingTest,
    ::testing::Combine(Values(Level::k2M, Level::k1G),
                       Values(InitialState::kManualCapsOff,
                              InitialState::kInitiallySet),
                       Values(LogMode::kEpochs, LogMode::kRingEpochs),
                       Values(VmConfig::Pml::kNo, VmConfig::Pml::kYes)));

// Covers: TST-03, DL-47, DL-26, DL-06, DL-04, DL-02
TEST_P(PageSplittingTest, PagesAreHugeThenSmallThenHugeAgain) {
  const auto [host, state, mode, pml] = GetParam();
  auto vm = TwoSlotVm(host, mode, pml);
  Populate(*vm, 64 * kPageSize);
  const Counts populated = CountsOf(*vm);
  EXPECT_EQ(populated.medium * 512 + populated.large * 512 * 512, kPages);
  EXPECT_EQ(populated.small, 0u);

  DirtyLogConfig config;
  if (state == InitialState::kManualCapsOff) {
    config.split = SplitPolicy::kEager;
  } else {
    config.initially_set = InitiallySet::kYes;
    config.split = SplitPolicy::kOnClear;
  }
  ASSERT_TRUE(StartLog(*vm, config, nullptr).ok());
  if (state == InitialState::kInitiallySet) {
    EXPECT_EQ(CountsOf(*vm), populated) << "enabling touches nothing";
  } else {
    EXPECT_EQ(CountsOf(*vm).medium + CountsOf(*vm).large, 0u);
    EXPECT_GE(CountsOf(*vm).small, kPages);
  }

  for (int pass = 0; pass < 2; ++pass) {
    Populate(*vm, 64 * kPageSize);
    Harvest(*vm, 0, mode);
    Harvest(*vm, 1, mode);
    EXPECT_EQ(CountsOf(*vm).medium + CountsOf(*vm).large, 0u);
    EXPECT_GE(CountsOf(*vm).small, kPages);
  }

  ASSERT_TRUE(
      StopLog(*vm, RecoverOnStop::kYes, Undelivered::kRefuse, nullptr).ok());
  Populate(*vm, 64 * kPageSize);
  EXPECT_EQ(CountsOf(*vm).medium, populated.medium);
  EXPECT_EQ(CountsOf(*vm).large, populated.large);
  EXPECT_EQ(AuditFindings(*vm), "");
}

}  // namespace
}  // namespace mmu
