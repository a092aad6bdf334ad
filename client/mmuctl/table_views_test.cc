#include "client/mmuctl/table_views.h"

#include <cstdint>
#include <string>
#include <vector>

#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {
namespace {

v1::PageTable Parse(const std::string& text) {
  v1::PageTable table;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &table))
      << text;
  return table;
}

// A root with two entries for one table that is unsync, and another table.
std::vector<v1::PageTable> SomeTables() {
  return {
      Parse("address_bytes: 0x2000 kind: PAGE_TABLE_KIND_SHADOW "
            "gpa_bytes: 0x5000 root_count: 2 unsync_child_count: 2 "
            "role { level: 2 access: 'rwux' efer_nx: true cr0_wp: true } "
            "present_entry_count: 3"),
      Parse("address_bytes: 0x3000 kind: PAGE_TABLE_KIND_SHADOW "
            "gpa_bytes: 0x6000 unsync: true write_flood_count: 1 "
            "role { level: 1 access: 'r-u-' guest_mode: true } "
            "parent_count: 2 parents { address_bytes: 0x2000 index: 7 } "
            "parents { address_bytes: 0x2000 index: 40 } "
            "present_entry_count: 12 leaf_entry_count: 12"),
      Parse("address_bytes: 0x4000 kind: PAGE_TABLE_KIND_SHADOW "
            "gpa_bytes: 0x200000 "
            "role { level: 1 access: 'rwux' direct: true } "
            "parent_count: 1 parents { address_bytes: 0x2000 index: 1 }"),
  };
}

TEST(TableViewsTest, ARoleIsSpeltOut) {
  EXPECT_EQ(ViewRole(Parse("role { level: 1 }").role()), "");
  EXPECT_EQ(
      ViewRole(Parse("role { level: 1 has_4_byte_gpte: true quadrant: 2 "
                     "direct: true access: 'rwux' invalid: true efer_nx: true "
                     "cr0_wp: true smap_andnot_wp: true ad_disabled: true "
                     "guest_mode: true passthrough: true cr4_smep: true }")
                   .role()),
      "direct passthrough l2 4-byte quadrant-2 nx wp smap-andnot-wp smep "
      "ad-disabled");
}

TEST(TableViewsTest, ATableIsALine) {
  EXPECT_EQ(
      ViewPageTables(SomeTables()),
      " TABLE  MMU     LEVEL       GPA  ACCESS  ROLE    STATE             "
      "ROOTS  ENTRIES  LEAFS  PARENTS\n"
      "0x2000  shadow      2    0x5000  rwux    nx wp   2 unsync below    "
      "    2        3      0  none\n"
      "0x3000  shadow      1    0x6000  r-u-    l2      unsync, 1 writes  "
      "    0       12     12  0x2000[7] 0x2000[40]\n"
      "0x4000  shadow      1  0x200000  rwux    direct  ok                "
      "    0        0      0  0x2000[1]\n");
}

TEST(TableViewsTest, ManyParentsAreCounted) {
  v1::PageTable table = SomeTables()[2];
  table.set_parent_count(1003);
  for (int i = 0; i < 15; ++i) *table.add_parents() = table.parents(0);
  EXPECT_NE(
      ViewPageTables({table}).find("  0x2000[1] 0x2000[1] 0x2000[1] +1,000\n"),
      std::string::npos);
}

TEST(TableViewsTest, ATreeShowsWhatHangsWhere) {
  const std::string tree =
      "root level 2, shadow 0x5000, rwux, nx wp, 2 unsync below, 3 entries, 0 "
      "leafs\n"
      "  [1] level 1, shadow 0x200000, rwux, direct, 0 entries, 0 leafs\n"
      "  [7] level 1, shadow 0x6000, r-u-, l2, unsync, 1 writes, 12 entries, "
      "12 leafs\n"
      "  [40] level 1, shadow 0x6000, r-u-, l2, unsync, 1 writes, see above\n";
  EXPECT_EQ(ViewPageTableTree(SomeTables(), 0), tree);
  EXPECT_EQ(ViewPageTableTree(SomeTables(), 0x2000), tree);
  EXPECT_EQ(ViewPageTableTree(SomeTables(), 0x4000),
            "level 1, shadow 0x200000, rwux, direct, 0 entries, 0 leafs\n");
  EXPECT_EQ(ViewPageTableTree(SomeTables(), 0x9000), "");
}

TEST(TableViewsTest, WhatNobodyUsesIsNoRoot) {
  v1::PageTable table = SomeTables()[0];
  table.clear_root_count();
  EXPECT_EQ(ViewPageTableTree({table}, 0).substr(0, 14), "unused level 2");
}

// The list may name a table below itself if the guest runs while it is made.
TEST(TableViewsTest, ATreeThatBitesItsTailEnds) {
  v1::PageTable table = SomeTables()[0];
  table.set_parent_count(1);
  table.add_parents()->set_address_bytes(table.address_bytes());
  EXPECT_NE(ViewPageTableTree({table}, 0).find("see above"), std::string::npos);
}

}  // namespace
}  // namespace mmud::client
