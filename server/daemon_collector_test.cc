#include "server/daemon_collector.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/vm_service.pb.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"
#include "server/config/config.h"
#include "server/metrics/rpc_metrics.h"
#include "server/services/daemon_state.h"

namespace mmud {
namespace {

constexpr uint64_t kMiB = 1 << 20;

Config OneLabel() {
  Config config;
  config.metrics_max_vms = 1;
  return config;
}

class DaemonCollectorTest : public ::testing::Test {
 protected:
  VmUse MakeVm(const std::string& name) {
    mmu::VmConfig config;
    config.memslots.push_back(mmu::testing::Slot(0, 0, kMiB));
    return state_.vms.Create(name, config).value();
  }

  // Writes to `pages` pages of a VM that logs.
  static void Dirty(mmu::Vm& vm, uint64_t pages) {
    ASSERT_TRUE(mmu::testing::StartLog(vm).ok());
    for (uint64_t i = 0; i < pages; ++i) mmu::testing::Write(vm, i << 12);
  }

  std::map<std::string, prometheus::MetricFamily> Collect() {
    std::map<std::string, prometheus::MetricFamily> families;
    for (prometheus::MetricFamily& family : collector_.Collect()) {
      EXPECT_TRUE(families.emplace(family.name, family).second)
          << family.name << " appears twice";
    }
    return families;
  }

  static absl::optional<double> Find(const prometheus::MetricFamily& family,
                                     const std::string& label_value) {
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) {
        if (label.value == label_value) return metric.counter.value;
      }
    }
    return absl::nullopt;
  }

  static double Value(const prometheus::MetricFamily& family,
                      const std::string& label_value) {
    const absl::optional<double> value = Find(family, label_value);
    EXPECT_TRUE(value.has_value()) << family.name << " has no " << label_value;
    return value.value_or(-1);
  }

  static double Sum(const prometheus::MetricFamily& family) {
    double sum = 0;
    for (const auto& metric : family.metric) sum += metric.counter.value;
    return sum;
  }

  void Delete(const std::string& name) {
    ASSERT_TRUE(
        state_.vms
            .Delete(
                name,
                [](const ManagedVm&) -> absl::StatusOr<mmu::UndeliveredCounts> {
                  return mmu::UndeliveredCounts();
                },
                [] { return absl::OkStatus(); })
            .ok());
  }

  DaemonState state_{OneLabel()};
  // The name comes from the descriptor, which links the service in.
  RpcMetrics rpcs_{
      {v1::GetVmRequest::descriptor()->file()->service(0)->full_name()}};
  DaemonCollector collector_{state_, rpcs_};
};

TEST_F(DaemonCollectorTest, KnownSeriesAreThereBeforeAnythingHappened) {
  const auto families = Collect();
  const std::map<std::string, size_t> expected = {
      {"mmud_mmu_lock_acquisitions_total", 2 * 9},
      {"mmud_rmap_lock_contended_total", 1},
      {"mmud_tlb_flush_requests_total", 10},
      {"mmud_page_faults_total", 3 * 6 * 3},
      {"mmud_vcpu_stall_seconds_total", 6},
      {"mmud_vcpus_waiting", 1},
      {"mmud_vcpus_paused", 1},
      {"mmud_pages_mapped", 3 * 3},
      {"mmud_table_pages", 3},
      {"mmud_page_tables", 2},
      {"mmud_page_table_waits_total", 1},
      {"mmud_shadow_pages", 1},
      {"mmud_shadow_pages_limit", 1},
      {"mmud_unsync_pages", 1},
      {"mmud_shadow_pages_zapped_total", 1},
      {"mmud_guest_pte_writes_total", 1},
      {"mmud_huge_page_split_failures_total", 4},
      {"mmud_split_throttled_seconds_total", 5},
      {"mmud_dirty_log_dirtied_pages_total", 1},
      {"mmud_workloads_running", 1},
      {"mmud_workloads_ended_total", 3},
      {"mmud_operations_total", 4},
      {"mmud_ready", 1},
      {"mmud_build_info", 1},
      {"mmud_log_messages_total", 4},
      {"process_cpu_seconds_total", 1},
      {"process_open_fds", 1},
  };
  for (const auto& [name, series] : expected) {
    const auto it = families.find(name);
    ASSERT_NE(it, families.end()) << name;
    EXPECT_EQ(it->second.metric.size(), series) << name;
  }
}

TEST_F(DaemonCollectorTest, WhatHasNoValueIsAbsent) {
  const auto families = Collect();
  for (const auto& [name, family] : families) {
    EXPECT_NE(family.type, prometheus::MetricType::Histogram) << name;
    EXPECT_FALSE(family.metric.empty()) << name;
  }
  for (const char* name :
       {"mmud_dirty_log_oldest_undelivered_timestamp_seconds",
        "mmud_dirty_pages_total", "mmud_vm_vcpu_stall_seconds_total",
        "mmud_tlb_flushes_total", "mmud_huge_page_splits_total"}) {
    EXPECT_EQ(families.count(name), 0u) << name;
  }
}

TEST_F(DaemonCollectorTest, TheOldestSealIsThereWhileItsPagesAreNotDelivered) {
  const VmUse vm = MakeVm("vms/a");
  Dirty(vm->vm(), 1);
  const std::string name =
      "mmud_dirty_log_oldest_undelivered_timestamp_seconds";
  EXPECT_EQ(Collect().count(name), 0u);
  ASSERT_TRUE(mmu::testing::SealLog(vm->vm()).ok());
  const auto sealed = Collect();
  ASSERT_EQ(sealed.count(name), 1u);
  EXPECT_GT(sealed.at(name).metric[0].gauge.value, 1e9);
  const auto value = [](const auto& families, const std::string& gauge) {
    return families.at(gauge).metric[0].gauge.value;
  };
  EXPECT_EQ(value(sealed, "mmud_dirty_log_sealed_pages"), 1);
  EXPECT_EQ(value(sealed, "mmud_dirty_log_in_flight_pages"), 0);
  const uint64_t all = ~uint64_t{0};
  ASSERT_TRUE(
      mmu::testing::ClearLog(vm->vm(), 0, 1, 0, 64, absl::MakeSpan(&all, 1))
          .ok());
  const auto cleared = Collect();
  EXPECT_EQ(cleared.count(name), 1u);
  EXPECT_EQ(value(cleared, "mmud_dirty_log_sealed_pages"), 0);
  EXPECT_EQ(value(cleared, "mmud_dirty_log_in_flight_pages"), 1);
  EXPECT_EQ(value(cleared, "mmud_dirty_log_epochs_in_flight"), 1);
  EXPECT_EQ(value(cleared, "mmud_dirty_log_undelivered_memslots"), 1);
}

TEST_F(DaemonCollectorTest, LogsThatNobodyOwnsAnyMoreAreCounted) {
  const auto value = [this](const std::string& name, auto kind) {
    const prometheus::MetricFamily family = Collect().at(name);
    return (family.metric[0].*kind).value;
  };
  EXPECT_EQ(
      value("mmud_dirty_log_expired_leases", &prometheus::ClientMetric::gauge),
      0);
  state_.abandoned_logs.Count(5);
  state_.abandoned_logs.Count(2);
  EXPECT_EQ(value("mmud_dirty_logs_abandoned_total",
                  &prometheus::ClientMetric::counter),
            2);
  EXPECT_EQ(value("mmud_dirty_logs_abandoned_pages_total",
                  &prometheus::ClientMetric::counter),
            7);
}

TEST_F(DaemonCollectorTest, AFaultIsCountedOnce) {
  const VmUse vm = MakeVm("vms/a");
  for (uint64_t i = 0; i < 5; ++i) {
    mmu::testing::Write(vm->vm(), i << 12);  // fixed
  }
  Dirty(vm->vm(), 3);  // the same pages, write-protected: fast
  const auto families = Collect();
  const auto& faults = families.at("mmud_page_faults_total");
  double fast = 0;
  double fixed = 0;
  for (const auto& metric : faults.metric) {
    for (const auto& label : metric.label) {
      if (label.value == "fast") fast += metric.counter.value;
      if (label.value == "fixed") fixed += metric.counter.value;
    }
  }
  EXPECT_EQ(fast, 3);
  EXPECT_EQ(fixed, 5);
  EXPECT_EQ(Sum(faults), static_cast<double>(vm->vm().Stats().vcpus.pf_taken));
}

TEST_F(DaemonCollectorTest, NoSeriesAppearsTwice) {
  const VmUse vm = MakeVm("vms/a");
  for (const auto& [name, family] : Collect()) {
    std::set<std::vector<prometheus::ClientMetric::Label>> seen;
    for (const auto& metric : family.metric) {
      EXPECT_TRUE(seen.insert(metric.label).second) << name;
    }
  }
}

std::vector<double> BoundsOf(const prometheus::MetricFamily& family) {
  std::vector<double> bounds;
  uint64_t before = 0;
  for (const auto& bucket : family.metric.at(0).histogram.bucket) {
    EXPECT_GE(bucket.cumulative_count, before);
    before = bucket.cumulative_count;
    bounds.push_back(bucket.upper_bound);
  }
  EXPECT_EQ(before, family.metric[0].histogram.sample_count);
  return bounds;
}

TEST_F(DaemonCollectorTest,
       AStepsBucketsHaveThePromisedHoldAndReachFourSeconds) {
  const VmUse vm = MakeVm("vms/a");
  Dirty(vm->vm(), 3);
  const auto families = Collect();
  EXPECT_EQ(
      BoundsOf(families.at("mmud_mmu_lock_hold_seconds")),
      (std::vector<double>{1e-6, 4e-6, 16e-6, 64e-6, 200e-6, 256e-6, 0.001024,
                           0.004096, 0.016384, 0.065536, 0.262144, 1.048576,
                           4.194304, std::numeric_limits<double>::infinity()}));
}

TEST_F(DaemonCollectorTest, WhatACallerWaitsForHasBucketsUpToAnHour) {
  const VmUse vm = MakeVm("vms/a");
  Dirty(vm->vm(), 3);
  rpcs_.Of("/mmud.v1.VmService/GetVm").seconds.Record(90'000'000'000);
  const auto families = Collect();
  for (const char* name :
       {"mmud_dirty_log_start_seconds", "grpc_server_handling_seconds"}) {
    const std::vector<double> bounds = BoundsOf(families.at(name));
    ASSERT_EQ(bounds.size(), 19u) << name;
    EXPECT_DOUBLE_EQ(bounds[13], 16.777216) << name;
    EXPECT_GE(bounds[17], 3600) << name;
  }
  // 90 s: between 67 s and 268 s, not somewhere above 4 s.
  const auto& buckets =
      families.at("grpc_server_handling_seconds").metric[0].histogram.bucket;
  EXPECT_EQ(buckets[14].cumulative_count, 0u);
  EXPECT_EQ(buckets[15].cumulative_count, 1u);
}

TEST_F(DaemonCollectorTest, ADeletedVmsPagesGoIntoNoOtherSeries) {
  {
    const VmUse a = MakeVm("vms/a");  // has the one label
    const VmUse b = MakeVm("vms/b");
    const VmUse c = MakeVm("vms/c");
    Dirty(a->vm(), 3);
    Dirty(b->vm(), 5);
    Dirty(c->vm(), 7);
  }
  const auto before = Collect();
  EXPECT_EQ(Value(before.at("mmud_dirty_pages_total"), "vms/a"), 3);
  EXPECT_EQ(Value(before.at("mmud_dirty_pages_total"), "_other"), 12);
  EXPECT_EQ(Sum(before.at("mmud_dirty_log_dirtied_pages_total")), 15);

  Delete("vms/a");
  auto after = Collect();
  EXPECT_EQ(Find(after.at("mmud_dirty_pages_total"), "vms/a"), absl::nullopt);
  EXPECT_EQ(Value(after.at("mmud_dirty_pages_total"), "_other"), 12)
      << "as it was: a rise would be a rate that nobody had";
  EXPECT_EQ(after.count("mmud_vm_harvested_pages_total"), 0u);
  EXPECT_EQ(Sum(after.at("mmud_dirty_log_dirtied_pages_total")), 15);

  Delete("vms/b");
  after = Collect();
  EXPECT_EQ(Value(after.at("mmud_dirty_pages_total"), "_other"), 12)
      << "a fall would be taken for a restart";
  EXPECT_EQ(Sum(after.at("mmud_dirty_log_dirtied_pages_total")), 15);
  EXPECT_EQ(after.at("mmud_vms").metric[0].gauge.value, 1);
}

TEST_F(DaemonCollectorTest, AVmThatExistsTellsWhatItCosts) {
  const VmUse vm = MakeVm("vms/a");
  Dirty(vm->vm(), 3);
  ASSERT_TRUE(mmu::testing::SealLog(vm->vm()).ok());
  const auto families = Collect();
  EXPECT_EQ(Value(families.at("mmud_vm_harvested_pages_total"), "vms/a"), 3);
  EXPECT_EQ(Value(families.at("mmud_vm_cleared_pages_total"), "vms/a"), 0);
  EXPECT_GT(Value(families.at("mmud_vm_mmu_lock_hold_seconds_total"), "enable"),
            0);
  EXPECT_GT(
      Value(families.at("mmud_vm_tlb_flush_requests_total"), "write_protect"),
      0);
}

TEST_F(DaemonCollectorTest, AStallIsSeenWhileItLasts) {
  const VmUse vm = MakeVm("vms/a");
  mmu::WaitTime& wait = mmu::testing::RingFullWaitOf(vm->vm(), 0);
  const auto stalled = [this] {
    return Value(Collect().at("mmud_vcpu_stall_seconds_total"), "ring_full");
  };
  EXPECT_EQ(Collect().at("mmud_vcpus_waiting").metric[0].gauge.value, 0);
  EXPECT_EQ(stalled(), 0);
  wait.Begin();
  EXPECT_EQ(Collect().at("mmud_vcpus_waiting").metric[0].gauge.value, 1);
  double last = 0;
  for (int i = 0; i < 3; ++i) {
    const double now = stalled();
    EXPECT_GT(now, last) << "it grows while the vCPU waits";
    last = now;
  }
  EXPECT_GT(Value(Collect().at("mmud_vm_vcpu_stall_seconds_total"), "vms/a"),
            0);
  wait.End();
  EXPECT_EQ(Collect().at("mmud_vcpus_waiting").metric[0].gauge.value, 0);
}

TEST_F(DaemonCollectorTest, PausedVcpusAreCounted) {
  const VmUse vm = MakeVm("vms/a");
  EXPECT_EQ(Collect().at("mmud_vcpus_paused").metric[0].gauge.value, 0);
  vm->vm().PauseVcpus();
  EXPECT_EQ(Collect().at("mmud_vcpus_paused").metric[0].gauge.value, 1);
}

TEST_F(DaemonCollectorTest, AFaultIsCountedForTheMmuThatHandledIt) {
  mmu::VmConfig config;
  config.memslots.push_back(mmu::testing::Slot(0, 0, kMiB));
  config.mmu = mmu::MmuMode::kTdpShadow;
  const auto faults = [this](const std::string& mmu) {
    double sum = 0;
    const auto families = Collect();
    for (const auto& metric : families.at("mmud_page_faults_total").metric) {
      for (const auto& label : metric.label) {
        if (label.name == "mmu" && label.value == mmu) {
          sum += metric.counter.value;
        }
      }
    }
    return sum;
  };
  {
    const VmUse tdp = MakeVm("vms/a");
    const VmUse shadow = state_.vms.Create("vms/b", config).value();
    for (uint64_t i = 0; i < 3; ++i) mmu::testing::Write(tdp->vm(), i << 12);
    // Far enough apart that none is mapped along with its neighbour.
    for (uint64_t i = 0; i < 5; ++i) mmu::testing::Write(shadow->vm(), i << 16);
    EXPECT_EQ(faults("tdp"), 3);
    EXPECT_EQ(faults("shadow"), 5);
  }
  for (const char* name : {"vms/a", "vms/b"}) Delete(name);
  EXPECT_EQ(faults("tdp"), 3);
  EXPECT_EQ(faults("shadow"), 5);
}

TEST_F(DaemonCollectorTest, ADrainIsSeen) {
  EXPECT_EQ(Collect().at("mmud_ready").metric[0].gauge.value, 1);
  state_.drain.Begin();
  EXPECT_EQ(Collect().at("mmud_ready").metric[0].gauge.value, 0);
  EXPECT_EQ(Collect().at("mmud_draining").metric[0].gauge.value, 1);
}

TEST_F(DaemonCollectorTest, UnknownMethodsAreCountedTogether) {
  rpcs_.Of("/mmud.v1.VmService/GetVm").started.fetch_add(2);
  rpcs_.Of("/made.up/Method").started.fetch_add(1);
  rpcs_.Of("/made.up/Other").started.fetch_add(1);
  const auto families = Collect();
  const auto& started = families.at("grpc_server_started_total");
  EXPECT_EQ(Value(started, "GetVm"), 2);
  EXPECT_EQ(Value(started, "other"), 2);
}

}  // namespace
}  // namespace mmud
