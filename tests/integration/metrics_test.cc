// /metrics: its format, its series at the start, and the events that change
// them.

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

Metrics Scrape(const Daemon& daemon) {
  absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
  EXPECT_TRUE(metrics.ok()) << metrics.status();
  return metrics.value_or(Metrics());
}

TEST(MetricsTest, EveryLineParsesAndNamesKeepTheConventions) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(16);
  const Metrics metrics = Scrape(daemon);
  EXPECT_GT(metrics.series.size(), 200u);
  for (const auto& [family, type] : metrics.types) {
    EXPECT_TRUE(absl::StartsWith(family, "mmud_") ||
                absl::StartsWith(family, "grpc_server_") ||
                absl::StartsWith(family, "process_"))
        << family;
    EXPECT_EQ(absl::EndsWith(family, "_total"), type == "counter") << family;
    EXPECT_EQ(metrics.helps.count(family), 1u) << family;
  }
}

TEST(MetricsTest, AnIdleDaemonHasFewSeriesAndNoEmptyHistogram) {
  Daemon daemon;
  const Metrics metrics = Scrape(daemon);
  EXPECT_LT(metrics.series.size(), 400u);
  for (const auto& [family, type] : metrics.types) {
    EXPECT_NE(type, "histogram") << family;
  }
  EXPECT_EQ(metrics.types.count(
                "mmud_dirty_log_oldest_undelivered_timestamp_seconds"),
            0u);
  EXPECT_GT(metrics.Value("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(metrics.Value("process_open_fds"), 3);
  EXPECT_NEAR(metrics.Value("process_start_time_seconds"),
              metrics.Value("mmud_start_timestamp_seconds"), 60);
}

TEST(MetricsTest, PromtoolFindsNothingToSay) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(16);
  const std::string file = daemon.directory().File("metrics");
  WriteFile(file, daemon.MetricsText());
  const ProgramResult result =
      RunProgram({"/bin/sh", "-c", "/usr/bin/promtool check metrics < " + file},
                 daemon.directory().File("promtool"));
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
}

TEST(MetricsTest, ThePageListsEveryFamily) {
  Daemon daemon;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  guest.WritePages(16);
  guest.StartDirtyLog();
  guest.WritePages(16);
  guest.Seal();
  const std::string page = ReadFile("docs/metrics.md");
  ASSERT_FALSE(page.empty());
  for (const auto& [family, type] : Scrape(daemon).types) {
    EXPECT_TRUE(absl::StrContains(page, absl::StrCat("`", family, "`")))
        << family << " is not in docs/metrics.md";
  }
}

TEST(MetricsTest, KnownSeriesAreThereFromTheStart) {
  Daemon daemon;
  const Metrics metrics = Scrape(daemon);
  for (const char* series : {
           "mmud_draining",
           "mmud_vms",
           "mmud_vcpus",
           "mmud_guest_memory_bytes",
           "mmud_mmu_lock_acquisitions_total{mode=\"write\",op=\"split\"}",
           "mmud_mmu_lock_contended_total{mode=\"read\",op=\"fault\"}",
           "mmud_mmu_lock_yields_total{mode=\"write\",op=\"zap\"}",
           "mmud_rmap_lock_contended_total",
           "mmud_tlb_flush_requests_total{reason=\"zap\"}",
           "mmud_page_faults_total{access=\"write\",mmu=\"tdp\","
           "result=\"fixed\"}",
           "mmud_page_faults_total{access=\"write\",mmu=\"tdp\","
           "result=\"fast\"}",
           "mmud_vcpu_stall_seconds_total{cause=\"write_protect\"}",
           "mmud_pages_mapped{mmu=\"tdp\",page_size=\"1g\"}",
           "mmud_pages_mapped{mmu=\"shadow\",page_size=\"4k\"}",
           "mmud_page_faults_total{access=\"read\",mmu=\"shadow\","
           "result=\"fixed\"}",
           "mmud_table_pages{mmu=\"tdp\"}",
           "mmud_shadow_pages",
           "mmud_shadow_pages_limit",
           "mmud_unsync_pages",
           "mmud_shadow_pages_zapped_total",
           "mmud_shadow_pages_recycled_total",
           "mmud_shadow_pages_flooded_total",
           "mmud_shadow_pde_zapped_total",
           "mmud_guest_pte_writes_total",
           "mmud_shadow_cache_misses_total",
           "mmud_huge_page_split_failures_total{reason=\"no_memory\"}",
           "mmud_split_throttled_seconds_total{limit=\"rate\"}",
           "mmud_split_operations_running",
           "mmud_huge_page_recoveries_total{to=\"2m\"}",
           "mmud_dirty_log_enabled_vms",
           "mmud_dirty_log_undelivered_memslots",
           "mmud_dirty_log_sealed_pages",
           "mmud_dirty_log_in_flight_pages",
           "mmud_dirty_log_epochs_in_flight",
           "mmud_dirty_log_expired_leases",
           "mmud_dirty_logs_abandoned_total",
           "mmud_dirty_logs_abandoned_pages_total",
           "mmud_dirty_log_harvested_pages_total",
           "mmud_dirty_log_cleared_pages_total",
           "mmud_dirty_ring_full_exits_total",
           "mmud_dirty_ring_entries",
           "mmud_dirty_ring_used_entries",
           "mmud_vcpu_stall_seconds_total{cause=\"ring_full\"}",
           "mmud_aging_pages_total{lock=\"none\",mmu=\"tdp\","
           "result=\"young\"}",
           "mmud_operations_total{code=\"OK\",method=\"SplitHugePages\"}",
           "mmud_operations_running{method=\"SplitHugePages\"}",
           "mmud_workloads_running",
           "mmud_workloads_ended_total{state=\"failed\"}",
           "mmud_vcpus_paused",
           "mmud_vcpus_waiting{cause=\"ring_full\"}",
           "mmud_dirty_log_dirtied_pages_total",
           "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"GetVm\","
           "grpc_service=\"mmud.v1.VmService\",grpc_type=\"unary\"}",
           "grpc_server_started_total{grpc_method=\"ReadDirtyPages\","
           "grpc_service=\"mmud.v1.DirtyLogService\","
           "grpc_type=\"server_stream\"}",
       }) {
    EXPECT_EQ(metrics.series.count(series), 1u) << series;
    EXPECT_EQ(metrics.Value(series), 0) << series;
  }
  EXPECT_EQ(metrics.Value("mmud_ready"), 1);
  EXPECT_EQ(metrics.Sum("mmud_build_info"), 1);
  EXPECT_GT(metrics.Value("mmud_start_timestamp_seconds"), 1e9);
}

TEST(MetricsTest, HistogramsHaveTheirBucketsAndAddUp) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(256);
  guest.StartDirtyLog();
  const Metrics metrics = Scrape(daemon);
  const std::vector<std::string> bounds = {
      "1e-06",    "4e-06",    "1.6e-05",  "6.4e-05",  "0.0002",
      "0.000256", "0.001024", "0.004096", "0.016384", "0.065536",
      "0.262144", "1.048576", "4.194304", "+Inf"};
  // The labels of the lock that a start of dirty logging holds.
  const std::string labels = "mode=\"read\",op=\"enable\"}";
  double before = 0;
  for (const std::string& bound : bounds) {
    const std::string series = absl::StrCat(
        "mmud_mmu_lock_hold_seconds_bucket{le=\"", bound, "\",", labels);
    ASSERT_EQ(metrics.series.count(series), 1u) << series;
    EXPECT_GE(metrics.Value(series), before) << series;
    before = metrics.Value(series);
  }
  EXPECT_GT(before, 0);
  EXPECT_EQ(before, metrics.Value(absl::StrCat(
                        "mmud_mmu_lock_hold_seconds_count{", labels)));
  EXPECT_EQ(metrics.series.count("mmud_mmu_lock_hold_seconds_count{"
                                 "mode=\"read\",op=\"recover\"}"),
            0u)
      << "nothing was observed";
  EXPECT_GT(metrics.Sum("mmud_mmu_lock_hold_seconds_count"), 0);
  EXPECT_EQ(metrics.Sum("mmud_dirty_log_start_seconds_count"), 1);
}

// Covers: STAT-42
TEST(MetricsTest, CountersFollowWhatTheGuestAndItsClientsDo) {
  Daemon daemon;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  guest.ReadWords(4 * kMiB, 2 * kMiB);
  Metrics metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_vms"), 1);
  EXPECT_EQ(metrics.Value("mmud_vcpus"), 1);
  EXPECT_EQ(metrics.Value("mmud_guest_memory_bytes"), 4.0 * kMiB);
  EXPECT_EQ(metrics.Value("mmud_page_faults_total{access=\"read\","
                          "mmu=\"tdp\",result=\"fixed\"}"),
            2);
  EXPECT_EQ(metrics.Value("mmud_pages_mapped{mmu=\"tdp\",page_size=\"2m\"}"),
            2);
  EXPECT_EQ(metrics.Value("mmud_workloads_ended_total{state=\"completed\"}"),
            1);

  guest.StartDirtyLog();
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_enabled_vms"), 1);
  EXPECT_EQ(metrics.Value("mmud_huge_page_splits_total{from=\"2m\","
                          "mmu=\"tdp\",trigger=\"eager\"}"),
            2);
  EXPECT_EQ(metrics.Value("mmud_pages_mapped{mmu=\"tdp\",page_size=\"4k\"}"),
            1024);
  EXPECT_EQ(metrics.Value("mmud_pages_mapped{mmu=\"tdp\",page_size=\"2m\"}"),
            0);
  EXPECT_GE(metrics.Sum("mmud_tlb_flush_requests_total",
                        {"reason=\"write_protect\""}),
            1);

  guest.WritePages(100);
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_pages_total{vm=\"vms/alpha\"}"), 100);
  EXPECT_EQ(metrics.Sum("mmud_page_faults_total", {"result=\"fast\""}), 100);
  EXPECT_EQ(metrics.Sum("mmud_page_faults_total"), 102) << "each fault once";

  const Harvest harvest = guest.Seal();
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_harvested_pages_total"), 100);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_sealed_pages"), 100);
  EXPECT_GT(
      metrics.Value("mmud_dirty_log_oldest_undelivered_timestamp_seconds"),
      1e9);
  guest.Clear(harvest.epoch, harvest.pages);
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_cleared_pages_total"), 100);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_sealed_pages"), 0);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_in_flight_pages"), 100);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_epochs_in_flight"), 1);
  guest.Acknowledge(harvest.epoch);
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_in_flight_pages"), 0);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_undelivered_memslots"), 0);
  EXPECT_EQ(metrics.Sum("mmud_dirty_log_seal_seconds_count"), 1);

  EXPECT_EQ(
      ReasonOf(daemon.client()
                   .CallText("mmud.v1.VmService/GetVm", "name: 'vms/nobody'")
                   .status),
      "VM_NOT_FOUND");
  daemon.client().CallText("mmud.v1.AgingService/AgeRange",
                           "vm: 'vms/alpha' mode: AGING_MODE_TEST_AND_CLEAR");
  metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("grpc_server_handled_total{grpc_code=\"NotFound\","
                          "grpc_method=\"GetVm\","
                          "grpc_service=\"mmud.v1.VmService\","
                          "grpc_type=\"unary\"}"),
            1);
  EXPECT_EQ(metrics.Sum("mmud_aging_pages_total"), 1024);
  EXPECT_EQ(metrics.Sum("mmud_aging_seconds_count"), 1);
}

// The huge pages are split by the paced operation, not by the switch to dirty
// logging.
TEST(MetricsTest, AThrottledStartIsPaced) {
  Daemon daemon;
  const Guest guest(
      daemon.client(), "alpha",
      {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M)});
  guest.ReadWords(4 * kMiB, 2 * kMiB);
  v1::StartDirtyLogRequest request;
  request.mutable_throttle()->mutable_min_pause()->set_nanos(1'000'000);
  EXPECT_EQ(guest.StartDirtyLog(request).splits().split_2m_count(), 2);
  const auto splits = [metrics = Scrape(daemon)](const char* trigger) {
    return metrics.Value(
        absl::StrCat("mmud_huge_page_splits_total{from=\"2m\",mmu=\"tdp\","
                     "trigger=\"",
                     trigger, "\"}"));
  };
  EXPECT_EQ(splits("request"), 2);
  EXPECT_EQ(splits("eager"), 0);
}

TEST(MetricsTest, CountersOutliveTheirVms) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  std::map<std::string, double> before;
  for (int round = 0; round < 3; ++round) {
    const Guest guest(client, "alpha", {MakeSlot(kMiB)});
    guest.StartDirtyLog();
    guest.WritePages(64);
    v1::DeleteVmRequest request;
    request.set_name(guest.name());
    request.set_force(true);
    client.Must(&v1::VmService::Stub::DeleteVm, request);
    const Metrics metrics = Scrape(daemon);
    EXPECT_EQ(metrics.Value("mmud_vms"), 0);
    EXPECT_EQ(metrics.Sum("mmud_pages_mapped"), 0);
    EXPECT_EQ(metrics.Value("mmud_dirty_log_dirtied_pages_total"),
              64 * (round + 1));
    for (const auto& [series, value] : metrics.series) {
      EXPECT_FALSE(absl::StrContains(series, "vm=\"")) << series;
    }
    for (const auto& [series, value] : before) {
      const auto type = metrics.types.find(series.substr(0, series.find('{')));
      if (type == metrics.types.end() || type->second != "counter") continue;
      EXPECT_GE(metrics.Value(series), value) << series;
    }
    before = metrics.series;
  }
}

TEST(MetricsTest, VmsBeyondTheLabelLimitShareOne) {
  Daemon daemon({"--metrics-max-vms=2"});
  for (int i = 0; i < 4; ++i) {
    const Guest guest(daemon.client(), absl::StrCat("vm", i), {MakeSlot(kMiB)});
    guest.StartDirtyLog();
    guest.WritePages(10);
  }
  const Metrics metrics = Scrape(daemon);
  EXPECT_EQ(metrics.Value("mmud_dirty_pages_total{vm=\"vms/vm0\"}"), 10);
  EXPECT_EQ(metrics.Value("mmud_dirty_pages_total{vm=\"vms/vm1\"}"), 10);
  EXPECT_EQ(metrics.Value("mmud_dirty_pages_total{vm=\"_other\"}"), 20);
  EXPECT_EQ(metrics.series.count("mmud_dirty_pages_total{vm=\"vms/vm2\"}"), 0u);
  EXPECT_EQ(metrics.Value("mmud_dirty_log_dirtied_pages_total"), 40);

  for (const char* name : {"vms/vm0", "vms/vm2"}) {
    v1::DeleteVmRequest request;
    request.set_name(name);
    request.set_force(true);
    daemon.client().Must(&v1::VmService::Stub::DeleteVm, request);
  }
  const Metrics after = Scrape(daemon);
  EXPECT_EQ(after.series.count("mmud_dirty_pages_total{vm=\"vms/vm0\"}"), 0u);
  EXPECT_EQ(after.Value("mmud_dirty_pages_total{vm=\"vms/vm1\"}"), 10);
  EXPECT_EQ(after.Value("mmud_dirty_pages_total{vm=\"_other\"}"), 20);
  EXPECT_EQ(after.Value("mmud_dirty_log_dirtied_pages_total"), 40);
}

TEST(MetricsTest, ScrapesGoOnWhileTheDaemonIsBusy) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", {MakeSlot(32 * kMiB)}, 2);
  guest.StartDirtyLog();
  guest.StartRandomWrites(3);
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    while (!stop) {
      const Guest other(client, "beta", {MakeSlot(kMiB)});
      other.WritePages(8);
      v1::DeleteVmRequest request;
      request.set_name(other.name());
      client.Must(&v1::VmService::Stub::DeleteVm, request);
    }
  });
  std::thread harvester([&] {
    while (!stop) {
      const Harvest harvest = guest.Seal();
      guest.Clear(harvest.epoch, harvest.pages);
    }
  });
  Metrics before = Scrape(daemon);
  for (int i = 0; i < 50; ++i) {
    Metrics now = Scrape(daemon);
    for (const char* family :
         {"mmud_dirty_log_cleared_pages_total", "mmud_page_faults_total",
          "mmud_dirty_log_dirtied_pages_total",
          "mmud_mmu_lock_acquisitions_total"}) {
      EXPECT_GE(now.Sum(family), before.Sum(family)) << family;
    }
    before = std::move(now);
  }
  stop = true;
  churn.join();
  harvester.join();
  EXPECT_GT(before.Sum("mmud_page_faults_total"), 0);
}

}  // namespace
}  // namespace mmud::integration
