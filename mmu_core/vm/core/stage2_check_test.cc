#include "mmu_core/vm/core/stage2_check.h"

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/stage2_leaf_sizes.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/core/vm_config_check.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

VmConfig Stage2() {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  return config;
}

TEST(Stage2CheckTest, EveryGranuleHasAConfigurationWithoutAnyOption) {
  for (const uint32_t granule : {4096u, 16384u, 65536u}) {
    VmConfig config = Stage2();
    config.stage2.granule_bytes = granule;
    EXPECT_TRUE(CheckConfig(config).ok()) << CheckConfig(config);
  }
}

// Covers: ARM-01
TEST(Stage2CheckTest, TheSizesOfLeafsAreThoseOfTheGranule) {
  constexpr uint64_t kKib = 1024;
  constexpr uint64_t kMib = 1024 * kKib;
  EXPECT_THAT(Stage2LeafSizes(4096),
              ElementsAre(4 * kKib, 2 * kMib, 1024 * kMib));
  EXPECT_THAT(Stage2LeafSizes(16384), ElementsAre(16 * kKib, 32 * kMib));
  EXPECT_THAT(Stage2LeafSizes(65536), ElementsAre(64 * kKib, 512 * kMib));
}

struct Wrong {
  std::string field;
  std::string says;  // a part of the message
  std::function<void(VmConfig&)> set;
};

// Covers: ARM-21
TEST(Stage2CheckTest, EachWrongOptionHasAnErrorOfItsOwn) {
  const std::vector<Wrong> all = {
      {"stage2.granule_bytes", "is 8192; it must be 4096, 16384 or 65536",
       [](VmConfig& c) { c.stage2.granule_bytes = 8192; }},
      {"stage2.ipa_bits", "is 31; it must be 32 to 48",
       [](VmConfig& c) { c.stage2.ipa_bits = 31; }},
      {"stage2.ipa_bits", "is 52; more than 48 need FEAT_LPA",
       [](VmConfig& c) { c.stage2.ipa_bits = 52; }},
      {"stage2.start_level",
       "is 2; with granules of 4 KiB and "
       "stage2.ipa_bits 40 it must be 0 or 1",
       [](VmConfig& c) { c.stage2.start_level = 2; }},
      {"stage2.bbm_level", "is 1, which this MMU does not have",
       [](VmConfig& c) { c.stage2.bbm_level = 1; }},
      {"stage2.bbm_level", "is 3; it must be 0 or 2",
       [](VmConfig& c) { c.stage2.bbm_level = 3; }},
      {"stage2.eager_split_chunk_bytes",
       "is 3145728; with granules of 4 KiB it must be 0",
       [](VmConfig& c) {
         c.stage2.eager_split_chunk_bytes = uint64_t{3} << 20;
       }},
      {"stage2.dirty_state", "without the Access flag by hardware",
       [](VmConfig& c) {
         c.stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
       }},
      {"stage2.dirty_state", "the VM has dirty rings of 4096 entries",
       [](VmConfig& c) {
         c.stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
         c.stage2.dirty_state = Stage2Config::DirtyState::kByHardware;
         c.dirty_ring_entries = 4096;
       }},
      {"format", "is an option of x86 tables",
       [](VmConfig& c) { c.format = EntryFormat::kNpt; }},
      {"pml", "is an option of x86 tables",
       [](VmConfig& c) { c.pml = VmConfig::Pml::kYes; }},
      {"root_levels", "is an option of x86 tables",
       [](VmConfig& c) { c.root_levels = 5; }},
      {"ad_bits", "is an option of x86 tables",
       [](VmConfig& c) { c.ad_bits = VmConfig::AdBits::kOff; }},
      {"nx_huge_pages", "is an option of x86 tables",
       [](VmConfig& c) { c.nx_huge_pages = VmConfig::NxHugePages::kOptOut; }},
      {"mmio_caching", "is an option of x86 tables",
       [](VmConfig& c) { c.mmio_caching = VmConfig::MmioCaching::kNo; }},
      {"slot_zap", "is an option of x86 tables",
       [](VmConfig& c) { c.slot_zap = VmConfig::SlotZap::kSlot; }},
      {"shadow_page_limit", "is an option of x86 tables",
       [](VmConfig& c) { c.shadow_page_limit = 64; }},
  };
  std::set<std::string> messages;
  for (const Wrong& wrong : all) {
    VmConfig config = Stage2();
    wrong.set(config);
    const absl::Status status = CheckConfig(config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.field;
    EXPECT_EQ(DetailOf(status).reason, Reason::kInvalidMmuOption);
    EXPECT_EQ(DetailOf(status).field, wrong.field);
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.says));
    EXPECT_TRUE(messages.insert(std::string(status.message())).second)
        << "two options have one message";
  }
}

TEST(Stage2CheckTest, AStartLevelThatKvmWouldNotChooseIsAllowed) {
  VmConfig config = Stage2();
  config.stage2.start_level = 0;
  EXPECT_TRUE(CheckConfig(config).ok()) << CheckConfig(config);
}

}  // namespace
}  // namespace mmu
