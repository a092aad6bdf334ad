#include "mmu_core/vm/core/mmu_mode_check.h"

#include <cerrno>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"

namespace mmu {
namespace {

using Mode = GuestPagingConfig::Mode;

VmConfig ConfigFor(MmuMode mmu) {
  VmConfig config;
  config.mmu = mmu;
  if (mmu == MmuMode::kShadow) config.format = EntryFormat::kNpt;
  return config;
}

// Returns the field that is refused, or "". The message must contain
// `mentions`.
std::string RefusedField(const VmConfig& config, const std::string& mentions) {
  const absl::Status status = CheckMmuMode(config);
  if (status.ok()) return "";
  const ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(detail.reason, Reason::kInvalidMmuOption);
  EXPECT_EQ(detail.kvm_errno, EINVAL);
  EXPECT_TRUE(absl::StrContains(status.message(), mentions)) << status;
  return detail.field;
}

TEST(MmuModeCheckTest, EveryModeGoesWithItsDefaults) {
  for (const MmuMode mmu : {MmuMode::kTdp, MmuMode::kTdpShadow,
                            MmuMode::kShadow, MmuMode::kNested}) {
    EXPECT_EQ(RefusedField(ConfigFor(mmu), ""), "");
  }
  VmConfig config = ConfigFor(MmuMode::kNested);
  config.format = EntryFormat::kNpt;
  EXPECT_EQ(RefusedField(config, ""), "");
}

TEST(MmuModeCheckTest, ShadowPagesOfTheGuestsOwnTablesLookLikeThese) {
  VmConfig config = ConfigFor(MmuMode::kShadow);
  config.format = EntryFormat::kEpt;
  EXPECT_EQ(RefusedField(config, "must be NPT"), "format");
}

TEST(MmuModeCheckTest, ALimitIsForVmsWithShadowPagesAndAtLeast64) {
  VmConfig config = ConfigFor(MmuMode::kTdp);
  config.shadow_page_limit = 1000;
  EXPECT_EQ(RefusedField(config, "is 1000"), "shadow_page_limit");
  for (const MmuMode mmu :
       {MmuMode::kTdpShadow, MmuMode::kShadow, MmuMode::kNested}) {
    config = ConfigFor(mmu);
    config.shadow_page_limit = 63;
    EXPECT_EQ(RefusedField(config, "is 63"), "shadow_page_limit");
    config.shadow_page_limit = 64;
    EXPECT_EQ(RefusedField(config, ""), "");
  }
}

TEST(MmuModeCheckTest, OnlyAHypervisorIsBoundToFourOrFiveLevels) {
  for (const Mode mode : {Mode::k32Bit, Mode::kPae}) {
    VmConfig config = ConfigFor(MmuMode::kNested);
    config.guest_paging.mode = mode;
    EXPECT_EQ(RefusedField(config, "4 or 5"), "guest_paging.mode");
    config = ConfigFor(MmuMode::kShadow);
    config.guest_paging.mode = mode;
    EXPECT_EQ(RefusedField(config, ""), "");
  }
}

TEST(MmuModeCheckTest, FiveLevelsOfTheGuestNeedFiveOfTheProcessor) {
  for (const MmuMode mmu : {MmuMode::kShadow, MmuMode::kNested}) {
    VmConfig config = ConfigFor(mmu);
    config.guest_paging.mode = Mode::k5Level;
    EXPECT_EQ(RefusedField(config, "walks 4"), "guest_paging.mode");
    config.root_levels = 5;
    EXPECT_EQ(RefusedField(config, ""), "");
    config.guest_paging.mode = Mode::k4Level;
    EXPECT_EQ(RefusedField(config, ""), "");
  }
}

TEST(MmuModeCheckTest, ThereAre1To64Processes) {
  VmConfig config = ConfigFor(MmuMode::kShadow);
  for (const int processes : {-1, 0, 65}) {
    config.guest_paging.processes = processes;
    EXPECT_EQ(RefusedField(config, "1 to 64"), "guest_paging.processes");
  }
  config.guest_paging.processes = 64;
  EXPECT_EQ(RefusedField(config, ""), "");
}

TEST(MmuModeCheckTest, OnlyEptOfL1CanDoWithoutAccessedAndDirtyBits) {
  VmConfig config = ConfigFor(MmuMode::kNested);
  config.guest_paging.ad_bits = GuestPagingConfig::AdBits::kOff;
  EXPECT_EQ(RefusedField(config, ""), "");
  config.format = EntryFormat::kNpt;
  EXPECT_EQ(RefusedField(config, "nested"), "guest_paging.ad_bits");
  config.mmu = MmuMode::kShadow;
  EXPECT_EQ(RefusedField(config, "nested"), "guest_paging.ad_bits");
}

TEST(MmuModeCheckTest, WithoutAGuestsTablesItsPagingDoesNotMatter) {
  for (const MmuMode mmu : {MmuMode::kTdp, MmuMode::kTdpShadow}) {
    VmConfig config = ConfigFor(mmu);
    config.guest_paging.mode = Mode::k32Bit;
    config.guest_paging.processes = 0;
    EXPECT_EQ(RefusedField(config, ""), "");
  }
}

}  // namespace
}  // namespace mmu
