#include "mmu_core/vm/inspect/shadow_page_list.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/mmu/shadow_page_info.h"
#include "mmu_core/mmu/shadow_page_lister.h"
#include "mmu_core/shadow/shadow_page_list.h"
#include "mmu_core/tdp/tdp_page_list.h"
#include "mmu_core/testing/shadow_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"

namespace mmu {
namespace {

using ::testing::ElementsAre;
using testing::IndirectRole;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kMiB = 1 << 20;
constexpr int64_t kPlenty = 1 << 30;

// "LEVEL@GFN PRESENT/LEAFS".
std::string Show(const ShadowPageInfo& page) {
  return absl::StrCat(page.role.level_number(), "@", page.gfn.value(), " ",
                      page.present_entries, "/", page.leafs);
}

std::vector<std::string> Show(const std::vector<ShadowPageInfo>& pages) {
  std::vector<std::string> all;
  for (const ShadowPageInfo& page : pages) all.push_back(Show(page));
  return all;
}

// --- The TDP MMU. ---

// 6 MiB of small pages at 0, one of them touched in each 2 MiB; 2 MiB at 1 GiB.
std::unique_ptr<Vm> VmWithTables() {
  auto vm = testing::MakeVm(
      {testing::Slot(0, 0, 6 * kMiB), testing::Slot(1, 1024 * kMiB, 2 * kMiB)});
  for (const uint64_t gpa : {0 * kMiB, 2 * kMiB, 4 * kMiB, 1024 * kMiB}) {
    testing::Write(*vm, gpa);
  }
  return vm;
}

const std::vector<std::string> kAllTables = {
    "4@0 1/0",   "3@0 2/0",    "2@0 3/0",      "1@0 1/1",
    "1@512 1/1", "1@1024 1/1", "2@262144 1/0", "1@262144 1/1"};

TEST(ListTdpPagesTest, TablesComeBeforeThoseBelowThem) {
  const auto vm = VmWithTables();
  const ShadowPageListing listing = vm->ListShadowPages({}, {}, 100);
  EXPECT_EQ(Show(listing.pages), kAllTables);
  EXPECT_EQ(listing.next, std::nullopt);
  EXPECT_EQ(listing.pages[0].root_count, 1);
  EXPECT_EQ(listing.pages[0].parent_count, 0u);
  for (size_t i = 1; i < listing.pages.size(); ++i) {
    EXPECT_EQ(listing.pages[i].root_count, 0);
    EXPECT_EQ(listing.pages[i].parent_count, 1u);
  }
  EXPECT_EQ(listing.pages[4].parents[0],
            (EntryPlace{listing.pages[2].table, 1}));
  EXPECT_EQ(listing.pages[6].parents[0],
            (EntryPlace{listing.pages[1].table, 1}));
}

TEST(ListTdpPagesTest, PartsJoinToTheWhole) {
  const auto vm = VmWithTables();
  for (const size_t limit : {1, 2, 3, 7, 8}) {
    std::vector<std::string> all;
    ShadowPagePosition from;
    int calls = 0;
    while (true) {
      ASSERT_LT(++calls, 20);
      const ShadowPageListing part = vm->ListShadowPages({}, from, limit);
      EXPECT_LE(part.pages.size(), limit);
      for (const std::string& page : Show(part.pages)) all.push_back(page);
      if (!part.next.has_value()) break;
      from = *part.next;
    }
    EXPECT_EQ(all, kAllTables) << limit;
  }
}

TEST(ListTdpPagesTest, FiltersHold) {
  const auto vm = VmWithTables();
  const auto list = [&](const ShadowPageFilter& filter) {
    return Show(vm->ListShadowPages(filter, {}, 100).pages);
  };
  EXPECT_THAT(list({.level = 2}), ElementsAre("2@0 3/0", "2@262144 1/0"));
  EXPECT_THAT(list({.level = 4}), ElementsAre("4@0 1/0"));
  EXPECT_THAT(list({.level = 5}), IsEmpty());
  EXPECT_THAT(list({.gfns = GfnRange::Of(Gfn(600), 1)}),
              ElementsAre("4@0 1/0", "3@0 2/0", "2@0 3/0", "1@512 1/1"));
  EXPECT_THAT(list({.gfns = GfnRange::Of(Gfn(511), 2), .level = 1}),
              ElementsAre("1@0 1/1", "1@512 1/1"));
  EXPECT_THAT(list({.sync = ShadowPageFilter::Sync::kUnsync}), IsEmpty());
  EXPECT_THAT(list({.owner = MmuKind::kShadow}), IsEmpty());
}

TEST(ListTdpPagesTest, ASmallBudgetLosesNothing) {
  const auto vm = VmWithTables();
  std::vector<ShadowPageInfo> pages;
  pages.reserve(100);
  const ShadowPageFilter filter;
  ShadowPageLister lister{
      .filter = filter, .limit = 100, .budget = 1, .pages = pages};
  int calls = 0;
  while (!ListTdpPages(vm->state().tdp.roots(), lister)) {
    ASSERT_LT(++calls, 10'000);
    lister.budget = 1;
  }
  EXPECT_EQ(Show(pages), kAllTables);
}

TEST(ListTdpPagesTest, APositionThatNothingGaveIsHarmless) {
  const auto vm = VmWithTables();
  for (const uint64_t number :
       {uint64_t{1}, uint64_t{1} << 40, uint64_t{1} << 52, ~uint64_t{0}}) {
    for (const MmuKind owner : {MmuKind::kTdp, MmuKind::kShadow}) {
      const ShadowPageListing listing = vm->ListShadowPages(
          {}, {.owner = owner, .major = number, .minor = number, .level = -7},
          100);
      EXPECT_EQ(listing.next, std::nullopt);
    }
  }
}

// --- The stage-2 MMU. ---

// The same memory, by granules of 4 KiB. The root is two tables of level 3.
std::unique_ptr<Vm> Stage2VmWithTables() {
  VmConfig config;
  config.mmu = MmuMode::kStage2;
  config.memslots = {testing::Slot(0, 0, 6 * kMiB),
                     testing::Slot(1, 1024 * kMiB, 2 * kMiB)};
  auto vm = testing::MakeVmFrom(config);
  for (const uint64_t gpa : {0 * kMiB, 2 * kMiB, 4 * kMiB, 1024 * kMiB}) {
    testing::Write(*vm, gpa);
  }
  return vm;
}

const std::vector<std::string> kAllStage2Tables = {
    "3@0 2/0",    "2@0 3/0",      "1@0 1/1",      "1@512 1/1",
    "1@1024 1/1", "2@262144 1/0", "1@262144 1/1", "3@134217728 0/0"};

TEST(ListStage2PagesTest, TablesComeBeforeThoseBelowThem) {
  const auto vm = Stage2VmWithTables();
  const ShadowPageListing listing = vm->ListShadowPages({}, {}, 100);
  EXPECT_EQ(Show(listing.pages), kAllStage2Tables);
  EXPECT_EQ(listing.next, std::nullopt);
  EXPECT_EQ(listing.pages[0].root_count, 1);
  EXPECT_EQ(listing.pages[0].parent_count, 0u);
  EXPECT_EQ(listing.pages[1].root_count, 0);
  EXPECT_EQ(listing.pages[1].parent_count, 1u);
  EXPECT_EQ(listing.pages[1].parents[0],
            (EntryPlace{listing.pages[0].table, 0}));
  EXPECT_EQ(listing.pages[5].parents[0],
            (EntryPlace{listing.pages[0].table, 1}));
}

TEST(ListStage2PagesTest, PartsOfAnySizeAddUpToTheWhole) {
  const auto vm = Stage2VmWithTables();
  for (size_t limit = 1; limit <= kAllStage2Tables.size() + 1; ++limit) {
    std::vector<std::string> all;
    ShadowPagePosition from;
    for (;;) {
      const ShadowPageListing part = vm->ListShadowPages({}, from, limit);
      for (const std::string& page : Show(part.pages)) all.push_back(page);
      if (!part.next.has_value()) break;
      from = *part.next;
    }
    EXPECT_EQ(all, kAllStage2Tables) << "by " << limit;
  }
}

TEST(ListStage2PagesTest, AFilterPassesWhatItNames) {
  const auto vm = Stage2VmWithTables();
  const auto show = [&](const ShadowPageFilter& filter) {
    return Show(vm->ListShadowPages(filter, {}, 100).pages);
  };
  EXPECT_THAT(show({.level = 2}), ElementsAre("2@0 3/0", "2@262144 1/0"));
  EXPECT_THAT(show({.gfns = GfnRange::Of(Gfn(512), 1)}),
              ElementsAre("3@0 2/0", "2@0 3/0", "1@512 1/1"));
  EXPECT_THAT(show({.owner = MmuKind::kTdp}), IsEmpty());
  EXPECT_THAT(show({.sync = ShadowPageFilter::Sync::kUnsync}), IsEmpty());
}

// --- The shadow MMU. ---

class ListShadowMmuPagesTest : public testing::ShadowFixture,
                               public ::testing::Test {
 protected:
  std::vector<ShadowPageInfo> List(const ShadowPageFilter& filter,
                                   size_t limit = 100,
                                   int64_t budget = kPlenty) {
    std::vector<ShadowPageInfo> all;
    WithoutLock([&] {
      ShadowPagePosition position{.owner = MmuKind::kShadow};
      bool done = false;
      for (int calls = 0; !done && calls < 10'000; ++calls) {
        std::vector<ShadowPageInfo> part;
        part.reserve(limit);
        ShadowPageLister lister{.filter = filter,
                                .limit = limit,
                                .budget = budget,
                                .position = position,
                                .pages = part};
        done = ListShadowMmuPages(mmu_lock_, pages_.set(), lister);
        position = lister.position;
        EXPECT_LE(part.size(), limit);
        all.insert(all.end(), part.begin(), part.end());
      }
      EXPECT_TRUE(done);
    });
    return all;
  }

  static std::set<uint64_t> Gfns(const std::vector<ShadowPageInfo>& pages) {
    std::set<uint64_t> gfns;
    for (const ShadowPageInfo& page : pages) gfns.insert(page.gfn.value());
    return gfns;
  }
};

TEST_F(ListShadowMmuPagesTest, APageIsDescribedInFull) {
  ShadowPageState& top = Page(70, IndirectRole(2));
  ShadowPageState& other = Page(71, IndirectRole(2));
  ShadowPageState& page = Page(7, IndirectRole(1));
  Link(top, 3, page);
  Link(other, 500, page);
  Map(page, 0, 1000);
  Map(page, 511, 1001);
  MarkUnsync(page);
  page.write_flood_count = 2;
  ++top.root_count;
  const std::vector<ShadowPageInfo> found =
      List({.gfns = GfnRange::Of(Gfn(7), 1)});
  ASSERT_EQ(found.size(), 1u);
  const ShadowPageInfo& info = found[0];
  EXPECT_EQ(info.owner, MmuKind::kShadow);
  EXPECT_EQ(info.role, IndirectRole(1));
  EXPECT_TRUE(info.unsync);
  EXPECT_EQ(info.write_flood_count, 2);
  EXPECT_EQ(info.root_count, 0);
  EXPECT_EQ(info.present_entries, 2);
  EXPECT_EQ(info.leafs, 2);
  EXPECT_EQ(info.parent_count, 2u);
  const std::vector<ShadowPageInfo> tops = List({.level = 2});
  ASSERT_EQ(tops.size(), 2u);
  const ShadowPageInfo& root = tops[0].gfn == Gfn(70) ? tops[0] : tops[1];
  const ShadowPageInfo& rest = tops[0].gfn == Gfn(70) ? tops[1] : tops[0];
  EXPECT_EQ(root.root_count, 1);
  EXPECT_EQ(root.unsync_children, 1u);
  EXPECT_EQ(root.leafs, 0);
  EXPECT_EQ(root.present_entries, 1);
  EXPECT_EQ(rest.root_count, 0);
  EXPECT_THAT((std::vector<EntryPlace>{info.parents[0], info.parents[1]}),
              UnorderedElementsAre(EntryPlace{root.table, 3},
                                   EntryPlace{rest.table, 500}));
  --top.root_count;
}

TEST_F(ListShadowMmuPagesTest, OnlyTheFirstOfManyParentsAreNamed) {
  ShadowPageState& top = Page(70, IndirectRole(2));
  ShadowPageState& page = Page(7, IndirectRole(1));
  for (int i = 0; i < 40; ++i) {
    TopUp();
    Link(top, i, page);
  }
  const std::vector<ShadowPageInfo> found = List({.level = 1});
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].parent_count, 40u);
  for (const EntryPlace& parent : found[0].parents) {
    EXPECT_NE(parent.table, Hpa());
  }
}

TEST_F(ListShadowMmuPagesTest, PartsAndSmallBudgetsLoseNothing) {
  std::set<uint64_t> made;
  for (uint64_t gfn = 0; gfn < 300; ++gfn) {
    Page(gfn, IndirectRole(1));
    made.insert(gfn);
  }
  for (const size_t limit : {1, 7, 299, 300, 301}) {
    const std::vector<ShadowPageInfo> found = List({}, limit);
    EXPECT_EQ(found.size(), made.size());
    EXPECT_EQ(Gfns(found), made);
  }
  const std::vector<ShadowPageInfo> found = List({}, 100, /*budget=*/1);
  EXPECT_EQ(found.size(), made.size());
  EXPECT_EQ(Gfns(found), made);
}

TEST_F(ListShadowMmuPagesTest, FiltersHold) {
  Page(7, IndirectRole(1));
  MarkUnsync(Page(8, IndirectRole(1)));
  Page(9, IndirectRole(3));
  Page(0, testing::DirectRole(1));
  Page(512, testing::DirectRole(1));
  EXPECT_THAT(Show(List({.sync = ShadowPageFilter::Sync::kUnsync})),
              ElementsAre("1@8 0/0"));
  EXPECT_THAT(Show(List({.level = 3})), ElementsAre("3@9 0/0"));
  // gfn 7 is a guest's table, and the direct page of gfn 0 maps it.
  EXPECT_EQ(Gfns(List({.gfns = GfnRange::Of(Gfn(7), 1)})),
            (std::set<uint64_t>{0, 7}));
  EXPECT_EQ(Gfns(List({.gfns = GfnRange::Of(Gfn(600), 1)})),
            (std::set<uint64_t>{512}));
}

// Writers get in between two pieces.
TEST_F(ListShadowMmuPagesTest, TheLockIsLetGoBetweenPieces) {
  for (uint64_t gfn = 0; gfn < 200; ++gfn) Page(gfn, IndirectRole(1));
  const auto acquisitions = [&] {
    return mmu_lock_.Snapshot()
        .ops[static_cast<int>(LockMode::kRead)][static_cast<int>(LockOp::kAge)]
        .acquisitions;
  };
  const uint64_t before = acquisitions();
  EXPECT_EQ(List({}, 1000).size(), 200u);
  // 200 pages of 512 entries are more than three pieces.
  EXPECT_GE(acquisitions() - before,
            200u * kEntriesPerTable / static_cast<uint64_t>(kLooksPerPiece));
}

}  // namespace
}  // namespace mmu
