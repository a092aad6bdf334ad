#include "server/convert/page_table_convert.h"

#include <string>

#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/stats/labels.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud {
namespace {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message))
      << text;
  return message;
}

void ExpectTable(const mmu::ShadowPageInfo& page, const std::string& text) {
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      ToProto(page), Parse<v1::PageTable>(text)))
      << ToProto(page).ShortDebugString();
}

TEST(PageTableConvertTest, EveryFieldIsShown) {
  mmu::ShadowPageInfo page;
  page.owner = mmu::MmuKind::kShadow;
  page.table = mmu::Hpa(0x7000);
  page.gfn = mmu::Gfn(3);
  page.role = mmu::PageRole::Of({.level = 2,
                                 .has_4_byte_gpte = true,
                                 .quadrant = 3,
                                 .direct = true,
                                 .access = mmu::kMayRead | mmu::kMayUser,
                                 .invalid = true,
                                 .efer_nx = true,
                                 .cr0_wp = true,
                                 .smap_andnot_wp = true,
                                 .ad_disabled = true,
                                 .guest_mode = true,
                                 .passthrough = true,
                                 .cr4_smep = true,
                                 .as_id = 1});
  page.root_count = 4;
  page.unsync = true;
  page.unsync_children = 5;
  page.write_flood_count = 2;
  page.parent_count = 2;
  page.parents[0] = {mmu::Hpa(0x8000), 7};
  page.parents[1] = {mmu::Hpa(0x9000), 511};
  page.present_entries = 9;
  page.leafs = 8;
  ExpectTable(
      page,
      "address_bytes: 28672 kind: PAGE_TABLE_KIND_SHADOW gpa_bytes: 12288 "
      "role { level: 2 has_4_byte_gpte: true quadrant: 3 direct: true "
      "access: 'r-u-' invalid: true efer_nx: true cr0_wp: true "
      "smap_andnot_wp: true ad_disabled: true guest_mode: true "
      "passthrough: true cr4_smep: true } root_count: 4 "
      "unsync: true unsync_child_count: 5 write_flood_count: 2 "
      "parent_count: 2 parents { address_bytes: 32768 index: 7 } "
      "parents { address_bytes: 36864 index: 511 } present_entry_count: 9 "
      "leaf_entry_count: 8");
}

// Each flag of a role by itself, so that none can stand for another.
TEST(PageTableConvertTest, FlagsOfARoleAreNotConfused) {
  const auto show = [](const mmu::PageRole::Fields& fields) {
    mmu::ShadowPageInfo page;
    page.role = mmu::PageRole::Of(fields);
    return ToProto(page).role().ShortDebugString();
  };
  const auto expect = [&](mmu::PageRole::Fields fields,
                          const std::string& field) {
    fields.level = 1;
    EXPECT_EQ(show(fields),
              Parse<v1::PageTableRole>("level: 1 access: '----' " + field)
                  .ShortDebugString());
  };
  mmu::PageRole::Fields f;
  expect(f, "");
  const auto one = [&](bool mmu::PageRole::Fields::*flag,
                       const std::string& field) {
    mmu::PageRole::Fields fields;
    fields.*flag = true;
    expect(fields, field);
  };
  using Fields = mmu::PageRole::Fields;
  one(&Fields::has_4_byte_gpte, "has_4_byte_gpte: true");
  one(&Fields::direct, "direct: true");
  one(&Fields::invalid, "invalid: true");
  one(&Fields::efer_nx, "efer_nx: true");
  one(&Fields::cr0_wp, "cr0_wp: true");
  one(&Fields::smap_andnot_wp, "smap_andnot_wp: true");
  one(&Fields::ad_disabled, "ad_disabled: true");
  one(&Fields::guest_mode, "guest_mode: true");
  one(&Fields::passthrough, "passthrough: true");
  one(&Fields::cr4_smep, "cr4_smep: true");
}

TEST(PageTableConvertTest, OnlyTheFirstParentsAreNamed) {
  mmu::ShadowPageInfo page;
  page.role = mmu::PageRole::Of({.level = 1});
  page.parent_count = 1000;
  EXPECT_EQ(ToProto(page).parents_size(), mmu::ShadowPageInfo::kMaxParents);
  EXPECT_EQ(ToProto(page).parent_count(), 1000);
}

TEST(PageTableConvertTest, FiltersAreTakenOverOrRefused) {
  const auto filter = ToShadowPageFilter(Parse<v1::ListPageTablesRequest>(
      "extent { gpa_bytes: 8192 size_bytes: 4096 } level: 3 unsync_only: true "
      "kind: PAGE_TABLE_KIND_SHADOW"));
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_EQ(filter->gfns, mmu::GfnRange::Of(mmu::Gfn(2), 1));
  EXPECT_EQ(filter->level, 3);
  EXPECT_EQ(filter->sync, mmu::ShadowPageFilter::Sync::kUnsync);
  EXPECT_EQ(filter->owner, mmu::MmuKind::kShadow);
  const auto why_not = [](const std::string& text) {
    const mmu::ErrorDetail detail = mmu::DetailOf(
        ToShadowPageFilter(Parse<v1::ListPageTablesRequest>(text)).status());
    return std::string(mmu::ToString(detail.reason)) + " " + detail.field;
  };
  EXPECT_EQ(why_not("level: 6"), "INVALID_RANGE level");
  EXPECT_EQ(why_not("level: -1"), "INVALID_RANGE level");
  EXPECT_EQ(why_not("kind: 9"), "INVALID_ENUM_VALUE kind");
  EXPECT_EQ(why_not("extent {}"), "INVALID_SIZE extent.size_bytes");
}

// So that no MMU is ever taken for another one.
TEST(PageTableConvertTest, AKindThatTheApiDoesNotNameIsNotShownAsAnother) {
  constexpr auto kUnknown = static_cast<mmu::MmuKind>(mmu::kMmuKinds);
  mmu::ShadowPageInfo page;
  page.role = mmu::PageRole::Of({.level = 1});
  page.owner = kUnknown;
  EXPECT_EQ(ToProto(page).kind(), v1::PAGE_TABLE_KIND_UNSPECIFIED);
  const std::string token = MakeShadowPageToken({kUnknown, 1, 2, 3});
  EXPECT_EQ(mmu::DetailOf(ToShadowPagePosition(token).status()).reason,
            mmu::Reason::kInvalidPageToken);
  for (int i = 0; i < mmu::kMmuKinds; ++i) {
    page.owner = static_cast<mmu::MmuKind>(i);
    EXPECT_NE(ToProto(page).kind(), v1::PAGE_TABLE_KIND_UNSPECIFIED);
  }
}

TEST(PageTableConvertTest, TokensComeBackAsTheyWere) {
  for (const mmu::ShadowPagePosition& position :
       {mmu::ShadowPagePosition{},
        mmu::ShadowPagePosition{mmu::MmuKind::kTdp, 7, uint64_t{1} << 40, 3},
        mmu::ShadowPagePosition{mmu::MmuKind::kShadow, 4095, 12, 0}}) {
    const auto parsed = ToShadowPagePosition(MakeShadowPageToken(position));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, position);
  }
  EXPECT_EQ(*ToShadowPagePosition(""), mmu::ShadowPagePosition());
  for (const char* token : {"x", "tables"}) {
    EXPECT_EQ(mmu::DetailOf(ToShadowPagePosition(token).status()).reason,
              mmu::Reason::kInvalidPageToken);
  }
}

}  // namespace
}  // namespace mmud
