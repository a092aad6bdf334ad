// RecoverHugePages on stage-2 tables: after a log has split blocks, it makes
// way for them, and the next accesses map them again.

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kKiB = int64_t{1} << 10;
// The guest writes to these pages, at the start of its memory.
constexpr int64_t kWrittenPages = 64;

struct Row {
  const char* name;
  int64_t granule_bytes;
  int32_t bbm_level;
  int64_t block_bytes;
  int64_t blocks;  // of the guest's memory
  const char* host_page_size;

  bool has_1g() const { return block_bytes == kGiB; }
};

class Stage2RecoverTest : public ::testing::TestWithParam<Row> {
 protected:
  // A VM whose memory is mapped by blocks, and is split by chunks of a block.
  // The guest has written to some pages.
  Guest MakeGuest() const {
    const Row& row = GetParam();
    const RawResult made = daemon_.client().CallText(
        "mmud.v1.VmService/CreateVm",
        absl::StrCat("vm_id: 'alpha' vm { stage2 { granule_bytes: ",
                     row.granule_bytes, " bbm_level: ", row.bbm_level,
                     " eager_split_chunk_bytes: ", row.block_bytes,
                     " } memslots { size_bytes: ", size(),
                     " host_page_size: ", row.host_page_size, " } }"));
    EXPECT_TRUE(made.status.ok()) << made.status.error_message();
    const Guest guest(daemon_.client(), "vms/alpha");
    guest.ReadWords(size(), row.block_bytes);
    guest.WritePages(kWrittenPages);
    EXPECT_EQ(Mapped(guest), Blocks(row.blocks));
    return guest;
  }
  int64_t size() const { return GetParam().blocks * GetParam().block_bytes; }
  int64_t granules() const { return size() / GetParam().granule_bytes; }

  // Mappings by size, as "4K 2M 1G".
  static std::string Text(int64_t of_4k, int64_t of_2m, int64_t of_1g) {
    return absl::StrCat(of_4k, " ", of_2m, " ", of_1g);
  }
  static std::string Mapped(const Guest& guest) {
    const v1::PageCounts pages = guest.Get().mapped_pages();
    return Text(pages.pages_4k_count(), pages.pages_2m_count(),
                pages.pages_1g_count());
  }
  static std::string Small(int64_t count) { return Text(count, 0, 0); }
  static std::string Blocks(int64_t count) {
    return GetParam().has_1g() ? Text(0, 0, count) : Text(0, count, 0);
  }

  // Splits all blocks by the start of a log, and ends the log.
  void LogForAWhile(const Guest& guest) const {
    v1::StartDirtyLogRequest start;
    start.set_split(v1::DIRTY_LOG_SPLIT_EAGER);
    guest.StartDirtyLog(start);
    guest.WritePages(kWrittenPages);
    EXPECT_EQ(Mapped(guest), Small(granules()));
    v1::StopDirtyLogRequest stop;
    stop.set_vm(guest.name());
    stop.set_owner_token(kOwnerToken);
    stop.set_discard_undelivered(true);
    daemon_.client().Must(&v1::DirtyLogService::Stub::StopDirtyLog, stop);
    EXPECT_EQ(Mapped(guest), Small(granules())) << "the end recovers nothing";
  }

  google::longrunning::Operation Recover(const Guest& guest,
                                         int64_t size_bytes) const {
    v1::RecoverHugePagesRequest request;
    request.set_vm(guest.name());
    request.add_ranges()->set_size_bytes(size_bytes);
    return daemon_.client().WaitDone(
        daemon_.client()
            .Must(&v1::SplitService::Stub::RecoverHugePages, request)
            .name());
  }

  // The tables of pages.
  int LastLevelTables(const Guest& guest) const {
    v1::ListPageTablesRequest request;
    request.set_vm(guest.name());
    request.set_page_size(1000);
    request.set_level(1);
    const auto tables =
        daemon_.client().Must(&v1::DebugService::Stub::ListPageTables, request);
    EXPECT_EQ(tables.next_page_token(), "");
    return tables.tables_size();
  }

  const Daemon daemon_;
};

INSTANTIATE_TEST_SUITE_P(
    Rows, Stage2RecoverTest,
    ::testing::Values(
        Row{"Blocks2M", 4 * kKiB, 0, 2 * kMiB, 4, "PAGE_SIZE_2M"},
        Row{"Blocks1G", 4 * kKiB, 0, kGiB, 1, "PAGE_SIZE_1G"},
        Row{"Blocks1GBbm2", 4 * kKiB, 2, kGiB, 1, "PAGE_SIZE_1G"},
        Row{"Blocks32M", 16 * kKiB, 2, 32 * kMiB, 3, "PAGE_SIZE_1G"},
        Row{"Blocks512M", 64 * kKiB, 0, 512 * kMiB, 2, "PAGE_SIZE_1G"}),
    [](const auto& row) { return std::string(row.param.name); });

TEST_P(Stage2RecoverTest, TheNextAccessesMapTheBlocksAgain) {
  const Row& row = GetParam();
  const Guest guest = MakeGuest();
  LogForAWhile(guest);
  const int64_t written_bytes = kWrittenPages * kPage;
  const std::string memory = guest.ReadAll(written_bytes);
  EXPECT_NE(memory.find_first_not_of('\0'), std::string::npos);

  const google::longrunning::Operation done = Recover(guest, size());
  const auto response = Unpack<v1::RecoverHugePagesResponse>(done.response());
  EXPECT_EQ(response.recovered_2m_count(), row.has_1g() ? 0 : row.blocks);
  EXPECT_EQ(response.recovered_1g_count(), row.has_1g() ? row.blocks : 0);
  const auto metadata = Unpack<v1::RecoverMetadata>(done.metadata());
  EXPECT_EQ(metadata.total_bytes(), size());
  EXPECT_EQ(metadata.done_bytes(), size());

  EXPECT_EQ(Mapped(guest), Small(0));
  EXPECT_EQ(LastLevelTables(guest), 0);
  guest.ReadWords(size(), row.block_bytes);
  EXPECT_EQ(Mapped(guest), Blocks(row.blocks));
  EXPECT_EQ(LastLevelTables(guest), 0);
  EXPECT_TRUE(guest.ReadAll(written_bytes) == memory);
  EXPECT_EQ(guest.Audit(), "");
}

TEST_P(Stage2RecoverTest, ARangeGetsBackTheBlocksThatLieInIt) {
  const Row& row = GetParam();
  const Guest guest = MakeGuest();
  LogForAWhile(guest);
  // The range ends in the middle of the last block.
  const int64_t whole = row.blocks - 1;
  const google::longrunning::Operation done =
      Recover(guest, whole * row.block_bytes + row.block_bytes / 2);
  const auto response = Unpack<v1::RecoverHugePagesResponse>(done.response());
  if (row.has_1g()) {
    // Of half a GiB, blocks of 2 MiB are possible.
    EXPECT_EQ(response.recovered_2m_count(), 256);
    EXPECT_EQ(response.recovered_1g_count(), 0);
    EXPECT_EQ(Mapped(guest), Small(granules() / 2));
  } else {
    EXPECT_EQ(response.recovered_2m_count(), whole);
    EXPECT_EQ(response.recovered_1g_count(), 0);
    EXPECT_EQ(Mapped(guest), Small(row.block_bytes / row.granule_bytes));
  }
  EXPECT_EQ(guest.Audit(), "");
}

}  // namespace
}  // namespace mmud::integration
