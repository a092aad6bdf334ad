// VMs on stage-2 tables over the API.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/aged_mmus.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAreArray;

constexpr int64_t kSize = 64 * kMiB;
constexpr int64_t kBlocks = 32;  // of 2 MiB

class Stage2VmTest : public ::testing::Test {
 protected:
  // A VM with one slot of kSize on 2 MiB pages, of which every page is written.
  Guest Make(const std::string& stage2) {
    const RawResult made = daemon_.client().CallText(
        "mmud.v1.VmService/CreateVm",
        absl::StrCat("vm_id: 'alpha' vm { stage2 { ", stage2,
                     " } memslots { size_bytes: ", kSize,
                     " host_page_size: PAGE_SIZE_2M } }"));
    EXPECT_TRUE(made.status.ok()) << made.status.error_message();
    Guest guest(daemon_.client(), "vms/alpha");
    guest.WritePages(kSize / kPage);
    return guest;
  }

  v1::UpdateVmResponse SetChunk(int64_t bytes, const std::string& etag = "") {
    return daemon_.client().Must(&v1::VmService::Stub::UpdateVm,
                                 ChunkRequest(bytes, etag));
  }
  static v1::UpdateVmRequest ChunkRequest(int64_t bytes,
                                          const std::string& etag) {
    v1::UpdateVmRequest request;
    request.mutable_vm()->set_name("vms/alpha");
    request.mutable_vm()->mutable_stage2()->set_eager_split_chunk_bytes(bytes);
    request.mutable_update_mask()->add_paths("stage2.eager_split_chunk_bytes");
    request.set_etag(etag);
    return request;
  }

  double Metric(const std::string& series) {
    const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon_.MetricsText());
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics->Value(series);
  }

  Daemon daemon_;
};

TEST_F(Stage2VmTest, OptionsHaveTheirDefaultsAndAreShown) {
  const Guest guest = Make("");
  const v1::Stage2Mmu plain = guest.Get().stage2();
  EXPECT_EQ(plain.granule_bytes(), 4096);
  EXPECT_EQ(plain.ipa_bits(), 40);
  EXPECT_FALSE(plain.has_start_level());
  EXPECT_EQ(plain.bbm_level(), 0);
  EXPECT_EQ(plain.eager_split_chunk_bytes(), 0);
  EXPECT_EQ(plain.hardware_access_flag(), v1::FEATURE_OFF);
  EXPECT_EQ(plain.hardware_dirty_state(), v1::FEATURE_OFF);
  EXPECT_EQ(plain.tlbi_range(), v1::FEATURE_OFF);
  EXPECT_EQ(plain.max_page_size(), v1::PAGE_SIZE_1G);
  EXPECT_THAT(plain.supported_block_bytes(),
              ElementsAre(4096, 2 * kMiB, 1024 * kMiB));
  v1::DeleteVmRequest request;
  request.set_name("vms/alpha");
  daemon_.client().Must(&v1::VmService::Stub::DeleteVm, request);

  const v1::Stage2Mmu chosen =
      Make(
          "granule_bytes: 16384 ipa_bits: 44 start_level: 1 bbm_level: 2 "
          "eager_split_chunk_bytes: 33554432 hardware_access_flag: FEATURE_ON "
          "hardware_dirty_state: FEATURE_ON tlbi_range: FEATURE_ON "
          "max_page_size: PAGE_SIZE_2M")
          .Get()
          .stage2();
  EXPECT_EQ(chosen.granule_bytes(), 16384);
  EXPECT_EQ(chosen.ipa_bits(), 44);
  EXPECT_EQ(chosen.start_level(), 1);
  EXPECT_EQ(chosen.bbm_level(), 2);
  EXPECT_EQ(chosen.eager_split_chunk_bytes(), 32 * kMiB);
  EXPECT_EQ(chosen.hardware_access_flag(), v1::FEATURE_ON);
  EXPECT_EQ(chosen.hardware_dirty_state(), v1::FEATURE_ON);
  EXPECT_EQ(chosen.tlbi_range(), v1::FEATURE_ON);
  EXPECT_EQ(chosen.max_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_THAT(chosen.supported_block_bytes(), ElementsAre(16384, 32 * kMiB));
}

// Covers: ARM-21
TEST_F(Stage2VmTest, TheChunkChangesWhileTheVmRuns) {
  const Guest guest = Make("");
  const std::string before = guest.Get().etag();
  const v1::Vm changed = SetChunk(2 * kMiB, before).vm();
  EXPECT_EQ(changed.stage2().eager_split_chunk_bytes(), 2 * kMiB);
  EXPECT_EQ(guest.Get().stage2().eager_split_chunk_bytes(), 2 * kMiB);
  EXPECT_NE(changed.etag(), before);
  EXPECT_EQ(ReasonOf(daemon_.client()
                         .Call(&v1::VmService::Stub::UpdateVm,
                               ChunkRequest(4096, before))
                         .status),
            "ETAG_MISMATCH");
  const auto refused = daemon_.client().Call(&v1::VmService::Stub::UpdateVm,
                                             ChunkRequest(3 * kMiB, ""));
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FactsOf(refused.status).field, "vm.stage2.eager_split_chunk_bytes");
  EXPECT_EQ(guest.Get().etag(), changed.etag());

  v1::StartDirtyLogRequest start;
  start.set_split(v1::DIRTY_LOG_SPLIT_EAGER);
  EXPECT_EQ(guest.StartDirtyLog(start).splits().split_2m_count(), kBlocks);
}

TEST_F(Stage2VmTest, BreaksAndTheirInvalidationsAreCounted) {
  const Guest guest = Make("");
  guest.StartDirtyLog();
  EXPECT_EQ(guest.Get().mapped_pages().pages_2m_count(), kBlocks);
  const double by_ipa =
      Metric("mmud_tlbi_operations_total{operation=\"ipas2e1is\"}");
  guest.WritePages(kSize / kPage, 512);  // one page of each block
  EXPECT_EQ(Metric("mmud_tlb_flushes_total{mmu=\"stage2\",reason=\"bbm\","
                   "scope=\"range\"}"),
            kBlocks);
  EXPECT_EQ(Metric("mmud_tlbi_operations_total{operation=\"ipas2e1is\"}"),
            by_ipa + kBlocks);
  EXPECT_GE(Metric("mmud_tlbi_operations_total{operation=\"vmalle1is\"}"),
            kBlocks);
  // Only the written pages are mapped now (ARM-35).
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(), kBlocks);
  EXPECT_EQ(guest.Seal().pages.size(), static_cast<size_t>(kBlocks));
  EXPECT_EQ(guest.Audit(), "");
}

// Of KVM's names an arm64 kernel has remote_tlb_flush and
// remote_tlb_flush_requests alone. Those of faults and pages are listed
// besides.
//
// Covers: STAT-40
TEST_F(Stage2VmTest, CountersThatOnlyX86HasAreNotListed) {
  const Guest guest = Make("");
  v1::GetMmuStatsRequest request;
  request.set_vm(guest.name());
  request.set_per_vcpu(true);
  const v1::GetMmuStatsResponse stats =
      daemon_.client().Must(&v1::StatsService::Stub::GetMmuStats, request);
  ASSERT_EQ(stats.vms_size(), 1);
  const auto names = [](const auto& statistics) {
    std::vector<std::string> listed;
    for (const v1::MmuStatistic& row : statistics) listed.push_back(row.name());
    return listed;
  };
  const std::vector<std::string> of_vcpus = {
      "accesses",
      "dirty_pages",
      "pf_emulate",
      "pf_fixed",
      "pf_retried",
      "pf_spurious",
      "pf_taken",
      "stall_flush",
      "stall_invalidation",
      "stall_lock",
      "stall_ring_full",
      "stall_split",
      "stall_write_protect",
      "tlb_conflict_aborts",
      "tlb_flush",
      "writes",
  };
  std::vector<std::string> of_vm = {
      "guest_memory_bytes", "pages_1g",         "pages_2m",
      "pages_4k",           "remote_tlb_flush", "remote_tlb_flush_requests",
      "table_pages",        "tlbi_ipas2e1",     "tlbi_ipas2e1is",
      "tlbi_ripas2e1is",    "tlbi_vmalle1",     "tlbi_vmalle1is",
      "tlbi_vmalls12e1is",
  };
  of_vm.insert(of_vm.end(), of_vcpus.begin(), of_vcpus.end());
  ASSERT_GE(stats.vms(0).vcpus_size(), 1);
  EXPECT_THAT(names(stats.vms(0).vcpus(0).statistics()),
              UnorderedElementsAreArray(of_vcpus));
  EXPECT_THAT(names(stats.vms(0).statistics()),
              UnorderedElementsAreArray(of_vm));
}

// On x86 a split of the TDP MMU owes no flush, and this limit never binds.
TEST_F(Stage2VmTest, TheThrottleOfFlushesBindsASplit) {
  const Guest guest = Make("eager_split_chunk_bytes: 2097152");
  v1::SplitHugePagesRequest request;
  request.mutable_throttle()->set_max_flushes_per_second(200);
  const auto operation = daemon_.client().WaitDone(guest.StartSplit(request));
  const auto response =
      Unpack<v1::SplitHugePagesResponse>(operation.response());
  EXPECT_EQ(response.splits().split_2m_count(), kBlocks);
  EXPECT_EQ(response.cost().tlb_flush_count(), kBlocks);
  const auto metadata = Unpack<v1::SplitMetadata>(operation.metadata());
  EXPECT_GT(metadata.throttled().flush().seconds() * 1'000'000'000 +
                metadata.throttled().flush().nanos(),
            0);
  EXPECT_EQ(guest.Audit(), "");
}

TEST_F(Stage2VmTest, AClearSaysWhatItProtectsBesides) {
  const Guest guest = Make("granule_bytes: 65536");
  guest.StartDirtyLog();
  guest.WritePages(1);
  const Harvest harvest = guest.Seal();
  EXPECT_EQ(harvest.pages.size(), 16u);
  const auto cleared = guest.Clear(harvest.epoch, {0, 3});
  ASSERT_TRUE(cleared.status.ok());
  EXPECT_EQ(cleared.response.cleared_page_count(), 2);
  EXPECT_EQ(cleared.response.also_protected_page_count(), 14);
  EXPECT_EQ(cleared.response.still_sealed_page_count(), 14);
}

TEST_F(Stage2VmTest, TablesAreListed) {
  const Guest guest = Make("");
  v1::ListPageTablesRequest list;
  list.set_vm("vms/alpha");
  list.set_kind(v1::PAGE_TABLE_KIND_STAGE2);
  const auto tables =
      daemon_.client().Must(&v1::DebugService::Stub::ListPageTables, list);
  EXPECT_GE(tables.tables_size(), 2);
  for (const v1::PageTable& table : tables.tables()) {
    EXPECT_EQ(table.kind(), v1::PAGE_TABLE_KIND_STAGE2);
  }
}

// KVM ages stage-2 tables with mmu_lock held for writing, so a call that must
// not wait for it skips them. (The VM's processor does not set AF.)
TEST_F(Stage2VmTest, PagesAgeWhereTheCallMayLock) {
  const Guest guest = Make("");
  v1::AgeRangeRequest age;
  age.set_vm("vms/alpha");
  age.set_mode(v1::AGING_MODE_TEST_AND_CLEAR);
  const auto skipped =
      daemon_.client().Must(&v1::AgingService::Stub::AgeRange, age);
  EXPECT_EQ(MmusOf(skipped), "STAGE2 SKIPPED UNSPECIFIED");
  EXPECT_EQ(skipped.young_page_count(), 0);

  age.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  const auto aged =
      daemon_.client().Must(&v1::AgingService::Stub::AgeRange, age);
  EXPECT_EQ(aged.young_page_count(), kSize / kPage);
  EXPECT_EQ(MmusOf(aged), "STAGE2 COVERED MMU_LOCK_WRITE");
  EXPECT_EQ(daemon_.client()
                .Must(&v1::AgingService::Stub::AgeRange, age)
                .young_page_count(),
            0);
}

TEST_F(Stage2VmTest, PagesAgeWithoutALockWhereTheProcessorSetsTheFlag) {
  const Guest guest = Make("hardware_access_flag: FEATURE_ON");
  v1::AgeRangeRequest age;
  age.set_vm("vms/alpha");
  age.set_mode(v1::AGING_MODE_TEST_AND_CLEAR);
  const auto aged =
      daemon_.client().Must(&v1::AgingService::Stub::AgeRange, age);
  EXPECT_EQ(aged.young_page_count(), kSize / kPage);
  EXPECT_EQ(MmusOf(aged), "STAGE2 COVERED NONE");
  EXPECT_TRUE(aged.was_fast());
}

TEST_F(Stage2VmTest, AMigrationCopiesAllWithTheDirtyStateByHardware) {
  const Guest guest = Make(
      "granule_bytes: 16384 hardware_access_flag: FEATURE_ON "
      "hardware_dirty_state: FEATURE_ON eager_split_chunk_bytes: 16384");
  v1::StartDirtyLogRequest start;
  start.set_initially_set(true);
  start.set_split(v1::DIRTY_LOG_SPLIT_ON_CLEAR);
  guest.StartDirtyLog(start);
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

}  // namespace
}  // namespace mmud::integration
