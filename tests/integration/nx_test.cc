// The NX huge page mitigation through the daemon.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/stats_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

constexpr int64_t kSize = 16 * kMiB;

v1::CreateVmRequest MakeRequest(bool opt_out) {
  v1::CreateVmRequest request;
  request.set_vm_id("alpha");
  request.mutable_vm()->mutable_tdp()->set_nx_huge_pages_opt_out(opt_out);
  *request.mutable_vm()->add_memslots() =
      MakeSlot(kSize, v1::MEMORY_BACKING_MEMFD, v1::PAGE_SIZE_2M);
  return request;
}

int64_t Stat(const Daemon& daemon, const std::string& name) {
  v1::GetMmuStatsRequest request;
  request.set_vm("vms/alpha");
  const auto response =
      daemon.client().Must(&v1::StatsService::Stub::GetMmuStats, request);
  for (const v1::MmuStatistic& statistic : response.vms(0).statistics()) {
    if (statistic.name() == name) return statistic.value();
  }
  ADD_FAILURE() << "no statistic " << name;
  return -1;
}

// Executes every page once.
void Execute(const Daemon& daemon) {
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_sequential()->set_stride_bytes(kPage);
  workload.mutable_pattern()->set_exec_fraction(1);
  workload.set_access_count(kSize / kPage);
  const lab::v1::Workload end =
      Guest(daemon.client(), "vms/alpha").RunToEnd(workload);
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_COMPLETED)
      << end.ShortDebugString();
}

double NxSplits(const Daemon& daemon) {
  const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  return metrics->Sum("mmud_huge_page_splits_total", {"trigger=\"nx\""});
}

TEST(NxHugePagesTest, ExecutedMemoryIsSplitAndRecoveryGivesItBack) {
  Daemon daemon({"--nx_huge_pages=force", "--nx_huge_pages_recovery_ratio=1",
                 "--nx_huge_pages_recovery_period=300ms"});
  daemon.client().Must(&v1::VmService::Stub::CreateVm, MakeRequest(false));
  const Guest guest(daemon.client(), "vms/alpha");
  guest.WritePages(kSize / kPage);
  ASSERT_EQ(Stat(daemon, "pages_2m"), kSize / (2 * kMiB));
  Execute(daemon);
  EXPECT_EQ(NxSplits(daemon), kSize / (2 * kMiB));
  // Within a period all NX splits are recovered, and reads map huge pages
  // again.
  ASSERT_TRUE(Eventually([&] { return Stat(daemon, "nx_lpage_splits") == 0; }));
  guest.ReadWords(kSize, kPage);
  EXPECT_EQ(Stat(daemon, "pages_2m"), kSize / (2 * kMiB));
}

TEST(NxHugePagesTest, OffMeansOff) {
  Daemon daemon({"--nx_huge_pages=off"});
  daemon.client().Must(&v1::VmService::Stub::CreateVm, MakeRequest(false));
  Execute(daemon);
  EXPECT_EQ(Stat(daemon, "pages_2m"), kSize / (2 * kMiB));
  EXPECT_EQ(NxSplits(daemon), 0);
}

// Covers: TST-11
TEST(NxHugePagesTest, OptingOutNeedsTheDaemonsLeave) {
  {
    Daemon strict({"--nx_huge_pages=force"});
    const auto denied =
        strict.client().Call(&v1::VmService::Stub::CreateVm, MakeRequest(true));
    EXPECT_EQ(denied.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(FactsOf(denied.status).reason, "NX_OPT_OUT_DENIED");
    EXPECT_EQ(FactsOf(denied.status).field, "vm.tdp.nx_huge_pages_opt_out");
  }
  Daemon daemon({"--nx_huge_pages=force", "--allow_nx_huge_pages_opt_out"});
  const auto created =
      daemon.client().Must(&v1::VmService::Stub::CreateVm, MakeRequest(true));
  EXPECT_TRUE(created.vm().tdp().nx_huge_pages_opt_out());
  Execute(daemon);
  EXPECT_EQ(Stat(daemon, "pages_2m"), kSize / (2 * kMiB));
  EXPECT_EQ(Stat(daemon, "nx_lpage_splits"), 0);
}

}  // namespace
}  // namespace mmud::integration
