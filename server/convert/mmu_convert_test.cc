#include "server/convert/mmu_convert.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

v1::Vm Parse(const std::string& text) {
  v1::Vm vm;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &vm)) << text;
  return vm;
}

mmu::VmConfig MustApply(const std::string& text) {
  mmu::VmConfig config;
  const absl::Status status = ApplyMmu(Parse(text), "vm", &config);
  EXPECT_TRUE(status.ok()) << text << ": " << status;
  return config;
}

// "REASON FIELD".
std::string WhyNot(const std::string& text) {
  mmu::VmConfig config;
  const v1::Vm vm = Parse(text);
  absl::Status status = ApplyMmu(vm, "vm", &config);
  if (status.ok()) {
    status = InMmuFields(InField(mmu::Vm::Create(config).status(), "vm."), vm);
  }
  const mmu::ErrorDetail detail = mmu::DetailOf(status);
  return std::string(mmu::ToString(detail.reason)) + " " + detail.field;
}

TEST(MmuConvertTest, EachMmuBecomesItsMode) {
  EXPECT_EQ(MustApply("tdp {}").mmu, mmu::MmuMode::kTdp);
  EXPECT_EQ(MustApply("tdp_shadow {}").mmu, mmu::MmuMode::kTdpShadow);
  EXPECT_EQ(MustApply("shadow {}").mmu, mmu::MmuMode::kShadow);
  EXPECT_EQ(MustApply("nested {}").mmu, mmu::MmuMode::kNested);
}

TEST(MmuConvertTest, ShadowPagesOfTheGuestsTablesAreLaidOutAsNpt) {
  EXPECT_EQ(MustApply("shadow {}").format, mmu::EntryFormat::kNpt);
  EXPECT_EQ(MustApply("nested {}").format, mmu::EntryFormat::kEpt);
}

TEST(MmuConvertTest, OptionsAreThoseOfTheMmuThatWasChosen) {
  const mmu::VmConfig nested = MustApply(
      "nested { entry_format: ENTRY_FORMAT_EPT pml: FEATURE_ON "
      "page_table_levels: 5 max_page_size: PAGE_SIZE_2M }");
  EXPECT_EQ(nested.pml, mmu::VmConfig::Pml::kYes);
  EXPECT_EQ(nested.root_levels, 5);
  EXPECT_EQ(nested.max_page_level, mmu::Level::k2M);
  const mmu::VmConfig shadow = MustApply(
      "shadow { slot_zap: SLOT_ZAP_SLOT mmio_caching: FEATURE_OFF "
      "nx_huge_pages_opt_out: true }");
  EXPECT_EQ(shadow.slot_zap, mmu::VmConfig::SlotZap::kSlot);
  EXPECT_EQ(shadow.mmio_caching, mmu::VmConfig::MmioCaching::kNo);
  EXPECT_EQ(shadow.nx_huge_pages, mmu::VmConfig::NxHugePages::kOptOut);
}

TEST(MmuConvertTest, TheKindOfMmuIsSaid) {
  EXPECT_EQ(WhyNot(""), "INVALID_MMU_OPTION vm.mmu");
  EXPECT_EQ(WhyNot("guest_paging {} shadow_page_limit: 100"),
            "INVALID_MMU_OPTION vm.mmu");
  // If a later daemon knows a field of the oneof, this one sees no field set.
  v1::Vm newer;
  ASSERT_TRUE(newer.ParseFromString(std::string("\xa2\x06\x00", 3)));
  mmu::VmConfig config;
  EXPECT_EQ(mmu::DetailOf(ApplyMmu(newer, "vm", &config)).field, "vm.mmu");
}

TEST(MmuConvertTest, ErrorsNameTheFieldOfTheMmuThatWasChosen) {
  EXPECT_EQ(WhyNot("tdp_shadow { page_table_levels: 3 }"),
            "INVALID_MMU_OPTION vm.tdp_shadow.page_table_levels");
  EXPECT_EQ(WhyNot("shadow { page_table_levels: 6 }"),
            "INVALID_MMU_OPTION vm.shadow.page_table_levels");
  EXPECT_EQ(WhyNot("tdp_shadow { pml: FEATURE_ON }"),
            "INVALID_MMU_OPTION vm.tdp_shadow.pml");
  EXPECT_EQ(WhyNot("tdp { entry_format: ENTRY_FORMAT_NPT "
                   "accessed_dirty_bits: FEATURE_OFF }"),
            "INVALID_MMU_OPTION vm.tdp.accessed_dirty_bits");
  EXPECT_EQ(WhyNot("shadow {} guest_paging { process_count: 65 }"),
            "INVALID_MMU_OPTION vm.guest_paging.process_count");
  EXPECT_EQ(
      WhyNot("shadow {} guest_paging { accessed_dirty_bits: FEATURE_OFF }"),
      "INVALID_MMU_OPTION vm.guest_paging.accessed_dirty_bits");
  EXPECT_EQ(WhyNot("shadow { slot_zap: 9 }"),
            "INVALID_ENUM_VALUE vm.shadow.slot_zap");
  EXPECT_EQ(WhyNot("nested { entry_format: ENTRY_FORMAT_NPT pml: FEATURE_ON }"),
            "INVALID_MMU_OPTION vm.nested.pml");
  EXPECT_EQ(WhyNot("shadow {} guest_paging { mode: 9 }"),
            "INVALID_ENUM_VALUE vm.guest_paging.mode");
  EXPECT_EQ(WhyNot("shadow {} guest_paging { large_pages: 9 }"),
            "INVALID_ENUM_VALUE vm.guest_paging.large_pages");
  EXPECT_EQ(WhyNot("tdp_shadow {} shadow_page_limit: -1"),
            "INVALID_MMU_OPTION vm.shadow_page_limit");
  EXPECT_EQ(WhyNot("stage2 { granule_bytes: 8192 }"),
            "INVALID_MMU_OPTION vm.stage2.granule_bytes");
  EXPECT_EQ(WhyNot("stage2 { hardware_dirty_state: FEATURE_ON }"),
            "INVALID_MMU_OPTION vm.stage2.hardware_dirty_state");
  EXPECT_EQ(WhyNot("stage2 { hardware_access_flag: 9 }"),
            "INVALID_ENUM_VALUE vm.stage2.hardware_access_flag");
}

// 63 is too small as well, but mmu_core refuses that.
TEST(MmuConvertTest, ALimitOnShadowPagesIsNotNegative) {
  for (const int32_t limit : {0, 63, 1000}) {
    EXPECT_EQ(
        ToShadowPageLimit(limit, "limit", mmu::Reason::kInvalidRange).value(),
        static_cast<uint64_t>(limit));
  }
  const absl::Status status =
      ToShadowPageLimit(-1, "limit", mmu::Reason::kInvalidRange).status();
  EXPECT_EQ(mmu::DetailOf(status).reason, mmu::Reason::kInvalidRange);
  EXPECT_EQ(mmu::DetailOf(status).field, "limit");
}

TEST(MmuConvertTest, GuestPagingIsForThoseWhoseTablesAreLookedAt) {
  for (const char* mmu : {"tdp {}", "tdp_shadow {}"}) {
    EXPECT_EQ(WhyNot(std::string(mmu) + " guest_paging {}"),
              "INVALID_MMU_OPTION vm.guest_paging");
  }
  const mmu::GuestPagingConfig paging =
      MustApply(
          "nested {} guest_paging { mode: GUEST_PAGING_MODE_5LEVEL "
          "large_pages: FEATURE_ON process_count: 7 "
          "accessed_dirty_bits: FEATURE_OFF }")
          .guest_paging;
  EXPECT_EQ(paging.mode, mmu::GuestPagingConfig::Mode::k5Level);
  EXPECT_EQ(paging.large_pages, mmu::GuestPagingConfig::LargePages::kYes);
  EXPECT_EQ(paging.processes, 7);
  EXPECT_EQ(paging.ad_bits, mmu::GuestPagingConfig::AdBits::kOff);
  EXPECT_EQ(MustApply("shadow {} guest_paging {}").guest_paging,
            mmu::GuestPagingConfig());
}

TEST(MmuConvertTest, WhatWasAskedForComesBack) {
  for (const char* text :
       {"tdp { entry_format: ENTRY_FORMAT_EPT max_page_size: PAGE_SIZE_2M "
        "page_table_levels: 5 slot_zap: SLOT_ZAP_SLOT "
        "accessed_dirty_bits: FEATURE_OFF pml: FEATURE_OFF "
        "mmio_caching: FEATURE_OFF nx_huge_pages_opt_out: true }",
        "tdp_shadow { entry_format: ENTRY_FORMAT_EPT "
        "max_page_size: PAGE_SIZE_1G page_table_levels: 4 "
        "slot_zap: SLOT_ZAP_ALL accessed_dirty_bits: FEATURE_ON "
        "pml: FEATURE_ON mmio_caching: FEATURE_ON }",
        "shadow { max_page_size: PAGE_SIZE_4K page_table_levels: 5 "
        "slot_zap: SLOT_ZAP_SLOT mmio_caching: FEATURE_OFF "
        "nx_huge_pages_opt_out: true } "
        "guest_paging { mode: GUEST_PAGING_MODE_32BIT large_pages: FEATURE_ON "
        "process_count: 3 accessed_dirty_bits: FEATURE_ON }",
        "nested { entry_format: ENTRY_FORMAT_NPT max_page_size: PAGE_SIZE_1G "
        "page_table_levels: 4 slot_zap: SLOT_ZAP_ALL "
        "accessed_dirty_bits: FEATURE_ON pml: FEATURE_OFF "
        "mmio_caching: FEATURE_ON } "
        "guest_paging { mode: GUEST_PAGING_MODE_PAE large_pages: FEATURE_OFF "
        "process_count: 1 accessed_dirty_bits: FEATURE_OFF }",
        "stage2 { granule_bytes: 65536 ipa_bits: 42 start_level: 2 "
        "bbm_level: 2 hardware_access_flag: FEATURE_ON tlbi_range: FEATURE_ON "
        "max_page_size: PAGE_SIZE_2M hardware_dirty_state: FEATURE_OFF "
        "supported_block_bytes: 65536 supported_block_bytes: 536870912 }"}) {
    v1::Vm back;
    FillMmu(MustApply(text), &back);
    EXPECT_TRUE(
        google::protobuf::util::MessageDifferencer::Equals(back, Parse(text)))
        << back.ShortDebugString() << "\n"
        << text;
  }
}

}  // namespace
}  // namespace mmud
