// The tables that ListPageTables lists for stage 2 with the larger granules.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

constexpr int64_t kTiB = 1024 * kGiB;

// A memslot that the guest reads, one word at each multiple of `stride_bytes`.
struct Memory {
  int64_t gpa_bytes = 0;
  int64_t size_bytes = 0;
  int64_t stride_bytes = 0;
};

class Stage2TablesTest : public ::testing::Test {
 protected:
  // A VM with these options of Stage2Mmu, whose guest has read its memory.
  Guest MakeGuest(const std::string& stage2, const std::vector<Memory>& memory,
                  const std::string& host_page_size) {
    std::string slots;
    for (size_t i = 0; i < memory.size(); ++i) {
      absl::StrAppend(&slots, " memslots { slot: ", i,
                      " gpa_bytes: ", memory[i].gpa_bytes,
                      " size_bytes: ", memory[i].size_bytes,
                      " host_page_size: ", host_page_size, " }");
    }
    const RawResult made =
        daemon_.client().CallText("mmud.v1.VmService/CreateVm",
                                  absl::StrCat("vm_id: 'alpha' vm { stage2 { ",
                                               stage2, " }", slots, " }"));
    EXPECT_TRUE(made.status.ok()) << made.status.error_message();
    const Guest guest(daemon_.client(), "vms/alpha");
    for (const Memory& part : memory) {
      lab::v1::Workload workload;
      workload.set_vcpu_count(1);
      workload.set_access_count(part.size_bytes / part.stride_bytes);
      lab::v1::AccessPattern* pattern = workload.mutable_pattern();
      pattern->mutable_sequential()->set_stride_bytes(part.stride_bytes);
      pattern->mutable_extent()->set_gpa_bytes(part.gpa_bytes);
      pattern->mutable_extent()->set_size_bytes(part.size_bytes);
      EXPECT_EQ(guest.RunToEnd(workload).state(),
                lab::v1::WORKLOAD_STATE_COMPLETED);
    }
    return guest;
  }

  static v1::ListPageTablesRequest All() {
    v1::ListPageTablesRequest request;
    request.set_vm("vms/alpha");
    return request;
  }

  // All pages of the list.
  std::vector<v1::PageTable> List(v1::ListPageTablesRequest request) const {
    std::vector<v1::PageTable> tables;
    for (int calls = 0; calls < 1000; ++calls) {
      const auto page = daemon_.client().Must(
          &v1::DebugService::Stub::ListPageTables, request);
      tables.insert(tables.end(), page.tables().begin(), page.tables().end());
      request.set_page_token(page.next_page_token());
      if (page.next_page_token().empty()) return tables;
    }
    ADD_FAILURE() << "the list does not end";
    return tables;
  }
  // A table as "level@gpa entries that are present/leafs of them".
  std::vector<std::string> Show(
      const v1::ListPageTablesRequest& request = All()) const {
    std::vector<std::string> all;
    for (const v1::PageTable& table : List(request)) {
      all.push_back(absl::StrCat(table.role().level(), "@", table.gpa_bytes(),
                                 " ", table.present_entry_count(), "/",
                                 table.leaf_entry_count()));
    }
    return all;
  }

  const Daemon daemon_;
};

// By granules of 16 KiB, a table of level 1 maps 32 MiB, and one of level 2
// 64 GiB. The root for 1 TiB is 16 tables of level 2.
TEST_F(Stage2TablesTest, OfGranulesOf16KTheRootIsSixteenTables) {
  const Guest guest =
      MakeGuest("granule_bytes: 16384",
                {{0, 64 * kMiB, 16384}, {64 * kGiB, 64 * kMiB, 32 * kMiB}},
                "PAGE_SIZE_4K");
  std::vector<std::string> tables = {
      "2@0 2/0",           "1@0 2048/2048",     "1@33554432 2048/2048",
      "2@68719476736 2/0", "1@68719476736 1/1", "1@68753031168 1/1"};
  for (int64_t i = 2; i < 16; ++i) {
    tables.push_back(absl::StrCat("2@", i * 64 * kGiB, " 0/0"));
  }
  EXPECT_THAT(Show(), ElementsAreArray(tables));
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(), 4096 + 2);

  // In parts of any size the list is the same.
  v1::ListPageTablesRequest part = All();
  part.set_page_size(3);
  EXPECT_THAT(Show(part), ElementsAreArray(tables));

  v1::ListPageTablesRequest filtered = All();
  filtered.set_level(1);
  EXPECT_THAT(Show(filtered),
              ElementsAre("1@0 2048/2048", "1@33554432 2048/2048",
                          "1@68719476736 1/1", "1@68753031168 1/1"));
  filtered = All();
  filtered.mutable_extent()->set_gpa_bytes(32 * kMiB);
  filtered.mutable_extent()->set_size_bytes(kPage);
  EXPECT_THAT(Show(filtered), ElementsAre("2@0 2/0", "1@33554432 2048/2048"));
  filtered = All();
  filtered.set_kind(v1::PAGE_TABLE_KIND_TDP);
  EXPECT_THAT(Show(filtered), IsEmpty());
}

TEST_F(Stage2TablesTest, AStartLevelAddsALevelOfTables) {
  MakeGuest("granule_bytes: 16384 start_level: 1",
            {{0, 64 * kMiB, 16384}, {64 * kGiB, 64 * kMiB, 32 * kMiB}},
            "PAGE_SIZE_4K");
  EXPECT_THAT(Show(), ElementsAre("3@0 2/0", "2@0 2/0", "1@0 2048/2048",
                                  "1@33554432 2048/2048", "2@68719476736 2/0",
                                  "1@68719476736 1/1", "1@68753031168 1/1"));
}

// By granules of 64 KiB, a table of level 1 maps 512 MiB, and one of level 2
// 4 TiB. The root for 16 TiB is four tables of level 2.
TEST_F(Stage2TablesTest, OfGranulesOf64KATableMaps512M) {
  MakeGuest(
      "granule_bytes: 65536 ipa_bits: 44",
      {{0, 64 * kMiB, 65536}, {4 * kTiB + 512 * kMiB, 1024 * kMiB, 512 * kMiB}},
      "PAGE_SIZE_4K");
  EXPECT_THAT(Show(),
              ElementsAre("2@0 1/0", "1@0 1024/1024", "2@4398046511104 2/0",
                          "1@4398583382016 1/1", "1@4399120252928 1/1",
                          "2@8796093022208 0/0", "2@13194139533312 0/0"));
}

TEST_F(Stage2TablesTest, ATableBelowTheRootNamesItsEntryThere) {
  MakeGuest("granule_bytes: 65536",
            {{0, kMiB, 65536}, {7 * 512 * kMiB, kMiB, 65536}}, "PAGE_SIZE_4K");
  ASSERT_THAT(Show(),
              ElementsAre("2@0 2/0", "1@0 16/16", "1@3758096384 16/16"));
  const std::vector<v1::PageTable> tables = List(All());
  const v1::PageTable& root = tables[0];
  EXPECT_EQ(root.root_count(), 1);
  EXPECT_EQ(root.parent_count(), 0);
  for (const auto& [place, index] : std::map<size_t, int>{{1, 0}, {2, 7}}) {
    const v1::PageTable& table = tables[place];
    EXPECT_EQ(table.kind(), v1::PAGE_TABLE_KIND_STAGE2);
    EXPECT_EQ(table.root_count(), 0);
    ASSERT_EQ(table.parent_count(), 1);
    EXPECT_EQ(table.parents(0).address_bytes(), root.address_bytes());
    EXPECT_EQ(table.parents(0).index(), index);
    EXPECT_TRUE(table.role().direct());
  }
}

// A block is an entry of a table of level 2. The first write to it while a log
// is on makes a table of it, with the granule that is written.
// Covers: ARM-35
TEST_F(Stage2TablesTest, ABlockBecomesATableByItsFirstLoggedWrite) {
  MakeGuest("granule_bytes: 65536", {{0, kGiB, 512 * kMiB}}, "PAGE_SIZE_1G");
  EXPECT_THAT(Show(), ElementsAre("2@0 2/2"));
  const Guest guest(daemon_.client(), "vms/alpha");
  guest.StartDirtyLog();
  EXPECT_THAT(Show(), ElementsAre("2@0 2/2"));
  guest.WritePages(1);
  EXPECT_THAT(Show(), ElementsAre("2@0 2/1", "1@0 1/1"));
  EXPECT_EQ(guest.Audit(), "");
}

}  // namespace
}  // namespace mmud::integration
