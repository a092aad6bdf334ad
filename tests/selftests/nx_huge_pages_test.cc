// As KVM's test of NX huge pages: the numbers of 2M mappings and of NX splits
// after each step of a guest that reads and executes.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::Exec;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Read;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::testing::Pair;

// Three regions, each of which could be mapped by a 2M page.
constexpr uint64_t k2MiB = uint64_t{2} << 20;
constexpr uint64_t kA = uint64_t{4} << 30;
constexpr uint64_t kB = kA + k2MiB;
constexpr uint64_t kC = kB + k2MiB;

// Either MMU translates the second stage, with the same numbers.
class NxHugePagesSelftest : public ::testing::TestWithParam<MmuMode> {
 protected:
  NxHugePagesSelftest() {
    EXPECT_TRUE(parameters_.SetNxHugePages("force").ok());
  }
  void Make(VmConfig::NxHugePages nx_huge_pages) {
    VmConfig config;
    config.mmu = GetParam();
    config.nx_huge_pages = nx_huge_pages;
    config.memslots = {Slot(0, kA, 3 * k2MiB, Level::k2M)};
    vm_ = MakeVmFrom(config, parameters_);
  }
  // The number of 2M mappings and of NX splits.
  std::pair<uint64_t, uint64_t> Pages() const {
    const VmStatsSnapshot stats = vm_->Stats();
    return {stats.pages_2m, stats.nx_lpage_splits};
  }

  NxParameters parameters_{ItlbMultihit::kNo};
  std::unique_ptr<Vm> vm_;
};

// Covers: TST-11, STAT-12
TEST_P(NxHugePagesSelftest, ExecutionSplitsAndRecoveryGivesBack) {
  Make(VmConfig::NxHugePages::kAsParameters);
  EXPECT_THAT(Pages(), Pair(0, 0));
  Read(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(1, 0));
  Read(*vm_, kB);
  EXPECT_THAT(Pages(), Pair(2, 0));
  Exec(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(1, 1));
  Exec(*vm_, kC);
  EXPECT_THAT(Pages(), Pair(1, 2));
  Read(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(1, 2));
  RecoverNxHugePages(vm_->state(), 1);
  EXPECT_THAT(Pages(), Pair(1, 0));
  Read(*vm_, kC);
  EXPECT_THAT(Pages(), Pair(2, 0));
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SPTE-53, SPTE-54
TEST_P(NxHugePagesSelftest,
       ARunTakesItsShareOldestFirstAndLoggedOnesOffTheList) {
  Make(VmConfig::NxHugePages::kAsParameters);
  for (const uint64_t gpa : {kA, kB, kC}) Exec(*vm_, gpa);
  EXPECT_THAT(Pages(), Pair(0, 3));
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 2), 2u);
  EXPECT_THAT(Pages(), Pair(0, 1));
  Read(*vm_, kA);
  Read(*vm_, kC);
  EXPECT_THAT(Pages(), Pair(1, 1)) << "C was executed last";
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  EXPECT_EQ(RecoverNxHugePages(vm_->state(), 1), 0u);
  EXPECT_EQ(vm_->Stats().nx_lpage_splits, 0u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: SPTE-54
TEST_P(NxHugePagesSelftest, WhatIsZappedIsNotListedAnyMore) {
  Make(VmConfig::NxHugePages::kAsParameters);
  Exec(*vm_, kA);
  Exec(*vm_, kB);
  EXPECT_THAT(Pages(), Pair(0, 2));
  ASSERT_TRUE(parameters_.SetNxHugePages("off").ok());
  EXPECT_THAT(Pages(), Pair(0, 0));
  Exec(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(1, 0));
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Covers: TST-11
TEST_P(NxHugePagesSelftest, AVmThatOptedOutStaysHuge) {
  Make(VmConfig::NxHugePages::kOptOut);
  Read(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(1, 0));
  Read(*vm_, kB);
  EXPECT_THAT(Pages(), Pair(2, 0));
  Exec(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(2, 0));
  Exec(*vm_, kC);
  EXPECT_THAT(Pages(), Pair(3, 0));
  Read(*vm_, kA);
  EXPECT_THAT(Pages(), Pair(3, 0));
  RecoverNxHugePages(vm_->state(), 1);
  EXPECT_THAT(Pages(), Pair(3, 0));
  Read(*vm_, kC);
  EXPECT_THAT(Pages(), Pair(3, 0));
}

INSTANTIATE_TEST_SUITE_P(Mmus, NxHugePagesSelftest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow),
                         [](const auto& p) {
                           return p.param == MmuMode::kTdp
                                      ? std::string("Tdp")
                                      : std::string("TdpShadow");
                         });

}  // namespace
}  // namespace mmu
