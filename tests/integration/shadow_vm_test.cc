// VMs whose vCPUs run on shadow pages. Through the daemon they are created,
// run, logged, copied, split, aged, inspected and deleted like other VMs.

#include <signal.h>

#include <cstdint>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/debug_service.grpc.pb.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kSize = 64 * kMiB;

// One kind of such VM, as text of mmud.v1.Vm.
struct Kind {
  const char* name;
  const char* vm;
};
std::ostream& operator<<(std::ostream& os, const Kind& kind) {
  return os << kind.name;
}

class ShadowVmTest : public ::testing::TestWithParam<Kind> {
 protected:
  // Makes the test's VM with 2 vCPUs and one slot of kSize.
  Guest Make(const std::string& id = "alpha") {
    const std::string slot = absl::StrCat(
        "memslots { size_bytes: ", kSize,
        " host_page_size: PAGE_SIZE_2M backing: MEMORY_BACKING_MEMFD }");
    const RawResult made = daemon_.client().CallText(
        "mmud.v1.VmService/CreateVm",
        absl::StrCat("vm_id: '", id, "' vm { vcpu_count: 2 ", slot, " ",
                     GetParam().vm, " }"));
    EXPECT_TRUE(made.status.ok()) << made.status.error_message();
    return Guest(daemon_.client(), "vms/" + id);
  }

  void Delete(const Guest& guest) {
    v1::DeleteVmRequest request;
    request.set_name(guest.name());
    request.set_force(true);
    daemon_.client().Must(&v1::VmService::Stub::DeleteVm, request);
  }

  std::map<std::string, int64_t> Stats() {
    v1::GetMmuStatsRequest request;
    request.set_vm("vms/alpha");
    const auto response =
        daemon_.client().Must(&v1::StatsService::Stub::GetMmuStats, request);
    std::map<std::string, int64_t> stats;
    for (const v1::MmuStatistic& statistic : response.vms(0).statistics()) {
      stats[statistic.name()] = statistic.value();
    }
    return stats;
  }

  // All tables that match `filter`, listed in pages of `page_size`.
  std::vector<v1::PageTable> Tables(v1::ListPageTablesRequest filter,
                                    int32_t page_size = 1000) {
    filter.set_vm("vms/alpha");
    filter.set_page_size(page_size);
    std::vector<v1::PageTable> all;
    do {
      const auto page = daemon_.client().Must(
          &v1::DebugService::Stub::ListPageTables, filter);
      EXPECT_LE(page.tables_size(), page_size);
      all.insert(all.end(), page.tables().begin(), page.tables().end());
      filter.set_page_token(page.next_page_token());
    } while (!filter.page_token().empty());
    return all;
  }

  int64_t Young(v1::AgingMode mode) {
    v1::AgeRangeRequest request;
    request.set_vm("vms/alpha");
    request.set_mode(mode);
    // The shadow MMU does not age fast.
    request.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
    return daemon_.client()
        .Must(&v1::AgingService::Stub::AgeRange, request)
        .young_page_count();
  }

  double Metric(const std::string& series) {
    const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon_.MetricsText());
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics->Value(series);
  }

  Daemon daemon_;
};

TEST_P(ShadowVmTest, TheVmIsWhatWasAskedFor) {
  const v1::Vm vm = Make().Get();
  EXPECT_EQ(vm.has_tdp_shadow(),
            absl::StrContains(GetParam().vm, "tdp_shadow"));
  EXPECT_EQ(vm.has_shadow(), absl::StartsWith(GetParam().vm, "shadow {"));
  EXPECT_EQ(vm.has_nested(), absl::StartsWith(GetParam().vm, "nested {"));
  EXPECT_EQ(vm.has_guest_paging(), !vm.has_tdp_shadow());
  // The default limit is a fiftieth of the guest's pages.
  EXPECT_EQ(vm.shadow_page_limit(), kSize / kPage / 50);
}

TEST_P(ShadowVmTest, AMigrationCopiesEveryPage) {
  const Guest guest = Make();
  EXPECT_EQ(guest.Audit(), "");
  guest.StartDirtyLog();
  guest.ExpectThatAMigrationCopiesAll(kSize);
}

TEST_P(ShadowVmTest, SplittingAgingAndRecoveryWorkWhileTheGuestRuns) {
  const Guest guest = Make();
  guest.StartRandomWrites(3);
  const auto split =
      daemon_.client().WaitDone(guest.StartSplit(v1::SplitHugePagesRequest()));
  EXPECT_FALSE(split.has_error()) << split.ShortDebugString();
  EXPECT_TRUE(
      Eventually([&] { return Young(v1::AGING_MODE_TEST_AND_CLEAR) > 0; }));
  guest.StartDirtyLog();
  const Harvest harvest = guest.Seal();
  EXPECT_TRUE(harvest.complete);
  EXPECT_TRUE(guest.Clear(harvest.epoch, harvest.pages).status.ok());
  v1::StopDirtyLogRequest stop;
  stop.set_vm(guest.name());
  stop.set_recover_huge_pages(true);
  stop.set_owner_token(kOwnerToken);
  stop.set_discard_undelivered(true);  // needed since the guest runs
  daemon_.client().Must(&v1::DirtyLogService::Stub::StopDirtyLog, stop);
  guest.StopWorkload();
  EXPECT_EQ(guest.Audit(), "");
  Young(v1::AGING_MODE_TEST_AND_CLEAR);
  EXPECT_EQ(Young(v1::AGING_MODE_TEST), 0);
}

TEST_P(ShadowVmTest, ShadowPagesAreCountedListedAndLimited) {
  const Guest guest = Make();
  guest.StartRandomWrites(3);
  const std::string write_faults =
      "mmud_page_faults_total{access=\"write\",mmu=\"shadow\","
      "result=\"fixed\"}";
  // The guest boots first, so wait for its first write faults.
  ASSERT_TRUE(Eventually([&] {
    return Stats()["mmu_shadow_pages"] > 0 && Metric(write_faults) > 0;
  }));
  guest.PauseVcpus();
  const std::map<std::string, int64_t> stats = Stats();
  EXPECT_GE(stats.at("mmu_cache_miss"), stats.at("mmu_shadow_pages"));
  EXPECT_EQ(Metric("mmud_shadow_pages"), stats.at("mmu_shadow_pages"));
  EXPECT_EQ(Metric("mmud_shadow_pages_limit"), kSize / kPage / 50);

  v1::ListPageTablesRequest filter;
  filter.set_kind(v1::PAGE_TABLE_KIND_SHADOW);
  const std::vector<v1::PageTable> tables = Tables(filter);
  EXPECT_EQ(static_cast<int64_t>(tables.size()), stats.at("mmu_shadow_pages"));
  EXPECT_EQ(Tables(filter, 7).size(), tables.size());
  std::set<int64_t> addresses;
  int64_t roots = 0;
  int64_t unsync = 0;
  for (const v1::PageTable& table : tables) {
    addresses.insert(table.address_bytes());
    roots += table.root_count();
    unsync += table.unsync() ? 1 : 0;
    EXPECT_EQ(table.role().guest_mode(), guest.Get().has_nested());
    EXPECT_EQ(table.role().direct() || table.role().passthrough() ||
                  table.role().level() > 0,
              true);
  }
  EXPECT_EQ(addresses.size(), tables.size());
  EXPECT_GT(roots, 0);
  EXPECT_EQ(unsync, stats.at("mmu_unsync"));
  for (const v1::PageTable& table : tables) {
    EXPECT_TRUE(table.root_count() > 0 || table.parent_count() > 0 ||
                !guest.Get().has_tdp_shadow())
        << table.ShortDebugString();
    for (const v1::PageTableEntry& parent : table.parents()) {
      EXPECT_EQ(addresses.count(parent.address_bytes()), 1u);
    }
  }
  filter.set_unsync_only(true);
  EXPECT_EQ(static_cast<int64_t>(Tables(filter).size()), unsync);

  v1::UpdateVmRequest update;
  update.mutable_vm()->set_name(guest.name());
  update.mutable_vm()->set_shadow_page_limit(64);
  update.mutable_update_mask()->add_paths("shadow_page_limit");
  const v1::Vm limited =
      daemon_.client().Must(&v1::VmService::Stub::UpdateVm, update).vm();
  EXPECT_GE(limited.shadow_page_limit(), 64);
  EXPECT_EQ(guest.Get().shadow_page_limit(), limited.shadow_page_limit());
  const std::map<std::string, int64_t> with_limit = Stats();
  EXPECT_EQ(with_limit.at("shadow_page_limit"), limited.shadow_page_limit());
  EXPECT_LE(with_limit.at("mmu_shadow_pages"), limited.shadow_page_limit());
  // A refused update changes nothing, not even its valid fields.
  update.mutable_vm()->set_shadow_page_limit(63);
  update.mutable_update_mask()->add_paths("labels");
  (*update.mutable_vm()->mutable_labels())["a"] = "b";
  const auto refused =
      daemon_.client().Call(&v1::VmService::Stub::UpdateVm, update);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FactsOf(refused.status).field, "vm.shadow_page_limit");
  EXPECT_EQ(guest.Get().labels_size(), 0);
  EXPECT_EQ(guest.Get().etag(), limited.etag());
  EXPECT_EQ(guest.Audit(), "");
}

TEST_P(ShadowVmTest, NothingStaysBehindAVmThatIsDeleted) {
  const Guest guest = Make();
  guest.StartDirtyLog();
  guest.StartRandomWrites(3);
  ASSERT_TRUE(Eventually([&] { return !guest.Seal().pages.empty(); }));
  guest.StopWorkload();
  Delete(guest);
  EXPECT_EQ(Metric("mmud_vms"), 0);
  EXPECT_EQ(Metric("mmud_shadow_pages"), 0);
  EXPECT_EQ(Metric("mmud_unsync_pages"), 0);
  EXPECT_EQ(Metric("mmud_pages_mapped{mmu=\"shadow\",page_size=\"4k\"}"), 0);
  // The counters keep the deleted VM's counts, and its name can be used again.
  EXPECT_GT(Metric("mmud_shadow_cache_misses_total"), 0);
  Make();
}

// A processor without paging reaches only 4 GiB. A guest without memory there
// boots nevertheless.
TEST_P(ShadowVmTest, AGuestCanBeAboveFourGib) {
  if (absl::StrContains(GetParam().vm, "32BIT") ||
      absl::StrContains(GetParam().vm, "PAE")) {
    GTEST_SKIP() << "its kernel can map 1 GiB";
  }
  const RawResult made = daemon_.client().CallText(
      "mmud.v1.VmService/CreateVm",
      absl::StrCat("vm_id: 'alpha' vm { memslots { gpa_bytes: ", 8 * kGiB,
                   " size_bytes: ", kSize, " } ", GetParam().vm, " }"));
  ASSERT_TRUE(made.status.ok()) << made.status.error_message();
  const Guest guest(daemon_.client(), "vms/alpha");
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_uniform();
  workload.mutable_pattern()->set_write_fraction(0.5);
  workload.set_access_count(100'000);
  const lab::v1::Workload end = guest.RunToEnd(workload);
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_COMPLETED)
      << end.ShortDebugString();
  EXPECT_EQ(guest.Audit(), "");
}

TEST_P(ShadowVmTest, AKilledDaemonLeavesNothingInTheWay) {
  const Guest guest = Make();
  guest.StartRandomWrites(3);
  ASSERT_TRUE(Eventually([&] { return Stats()["mmu_shadow_pages"] > 0; }));
  daemon_.process().Signal(SIGKILL);
  EXPECT_EQ(daemon_.process().Wait(absl::Seconds(10)), -SIGKILL);
  const std::unique_ptr<Daemon> next = Daemon::OnSocketOf(daemon_);
  EXPECT_EQ(next->client()
                .Must(&v1::VmService::Stub::ListVms, v1::ListVmsRequest())
                .vms_size(),
            0);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, ShadowVmTest,
    ::testing::Values(
        Kind{"TdpShadow", "tdp_shadow {}"},
        Kind{"TdpShadowNpt", "tdp_shadow { entry_format: ENTRY_FORMAT_NPT }"},
        Kind{"Shadow", "shadow {} guest_paging { process_count: 3 }"},
        Kind{"ShadowLargePages",
             "shadow {} guest_paging { large_pages: "
             "FEATURE_ON }"},
        Kind{"Shadow32Bit",
             "shadow {} guest_paging { mode: "
             "GUEST_PAGING_MODE_32BIT }"},
        Kind{"ShadowPae",
             "shadow {} guest_paging { mode: "
             "GUEST_PAGING_MODE_PAE process_count: 2 }"},
        Kind{"Nested", "nested {}"},
        Kind{"NestedLargePages",
             "nested {} guest_paging { large_pages: "
             "FEATURE_ON }"},
        Kind{"NestedNpt",
             "nested { entry_format: ENTRY_FORMAT_NPT "
             "page_table_levels: 5 }"}),
    [](const ::testing::TestParamInfo<Kind>& kind) { return kind.param.name; });

}  // namespace
}  // namespace mmud::integration
