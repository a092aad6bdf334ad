#include "server/metrics/daemon_collector.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "mmud/v1/vm_service.pb.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"
#include "server/config.h"
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

  // Writes to so many pages of a VM that logs.
  static void Dirty(mmu::Vm& vm, uint64_t pages) {
    ASSERT_TRUE(vm.StartDirtyLog(mmu::DirtyLogConfig(), nullptr).ok());
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

  static double Value(const prometheus::MetricFamily& family,
                      const std::string& label_value) {
    for (const auto& metric : family.metric) {
      for (const auto& label : metric.label) {
        if (label.value == label_value) return metric.counter.value;
      }
    }
    ADD_FAILURE() << family.name << " has no " << label_value;
    return -1;
  }

  DaemonState state_{OneLabel()};
  // Asked of the descriptor, which links the service in.
  RpcMetrics rpcs_{
      {v1::GetVmRequest::descriptor()->file()->service(0)->full_name()}};
  DaemonCollector collector_{state_, rpcs_};
};

TEST_F(DaemonCollectorTest, KnownSeriesAreThereBeforeAnythingHappened) {
  const auto families = Collect();
  const std::map<std::string, size_t> expected = {
      {"mmud_mmu_lock_wait_seconds", 2 * 9},
      {"mmud_mmu_lock_hold_seconds", 2 * 9},
      {"mmud_mmu_lock_acquisitions_total", 2 * 9},
      {"mmud_rmap_lock_contended_total", 1},
      {"mmud_tlb_flushes_total", 2 * 3 * 10},
      {"mmud_tlb_flush_seconds", 3},
      {"mmud_page_faults_total", 2 * 6 * 3},
      {"mmud_vcpu_stall_seconds_total", 6},
      {"mmud_pages_mapped", 2 * 3},
      {"mmud_table_pages", 2},
      {"mmud_page_tables", 2},
      {"mmud_page_table_waits_total", 1},
      {"mmud_shadow_pages", 1},
      {"mmud_shadow_pages_limit", 1},
      {"mmud_unsync_pages", 1},
      {"mmud_shadow_pages_zapped_total", 1},
      {"mmud_guest_pte_writes_total", 1},
      {"mmud_huge_page_splits_total", 2 * 2 * 5},
      {"mmud_huge_page_split_failures_total", 4},
      {"mmud_split_throttled_seconds_total", 5},
      {"mmud_dirty_pages_total", 1},
      {"mmud_operations_total", 3 * 17},
      {"mmud_ready", 1},
      {"mmud_build_info", 1},
      {"mmud_log_messages_total", 4},
  };
  for (const auto& [name, series] : expected) {
    const auto it = families.find(name);
    ASSERT_NE(it, families.end()) << name;
    EXPECT_EQ(it->second.metric.size(), series) << name;
  }
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

TEST_F(DaemonCollectorTest, BucketsAreCumulativePowersOfFour) {
  const auto families = Collect();
  const auto& buckets =
      families.at("mmud_tlb_flush_seconds").metric[0].histogram.bucket;
  ASSERT_EQ(buckets.size(), 13u);
  EXPECT_DOUBLE_EQ(buckets[0].upper_bound, 1e-6);
  for (size_t i = 1; i + 1 < buckets.size(); ++i) {
    EXPECT_DOUBLE_EQ(buckets[i].upper_bound, buckets[i - 1].upper_bound * 4);
    EXPECT_GE(buckets[i].cumulative_count, buckets[i - 1].cumulative_count);
  }
}

TEST_F(DaemonCollectorTest, DirtyPagesOfVmsBeyondTheLimitAndGoneAreInOther) {
  {
    const VmUse a = MakeVm("vms/a");
    const VmUse b = MakeVm("vms/b");
    Dirty(a->vm(), 3);
    Dirty(b->vm(), 5);
  }
  const auto before = Collect();
  EXPECT_EQ(Value(before.at("mmud_dirty_pages_total"), "vms/a"), 3);
  EXPECT_EQ(Value(before.at("mmud_dirty_pages_total"), "_other"), 5);
  ASSERT_TRUE(state_.vms
                  .Delete(
                      "vms/a",
                      [](const ManagedVm&) { return absl::OkStatus(); },
                      [] { return absl::OkStatus(); })
                  .ok());
  const auto after = Collect();
  EXPECT_EQ(Value(after.at("mmud_dirty_pages_total"), "_other"), 8);
  EXPECT_EQ(after.at("mmud_vms").metric[0].gauge.value, 1);
}

TEST_F(DaemonCollectorTest, VmsWithShadowPagesHaveALabelOfTheirOwn) {
  mmu::VmConfig config;
  config.memslots.push_back(mmu::testing::Slot(0, 0, kMiB));
  config.mmu = mmu::MmuMode::kNested;
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
    const VmUse nested = state_.vms.Create("vms/b", config).value();
    for (uint64_t i = 0; i < 3; ++i) mmu::testing::Write(tdp->vm(), i << 12);
    for (uint64_t i = 0; i < 5; ++i) mmu::testing::Write(nested->vm(), i << 12);
    EXPECT_EQ(faults("tdp"), 3);
    EXPECT_EQ(faults("shadow"), 5);
  }
  for (const char* name : {"vms/a", "vms/b"}) {
    ASSERT_TRUE(state_.vms
                    .Delete(
                        name, [](const ManagedVm&) { return absl::OkStatus(); },
                        [] { return absl::OkStatus(); })
                    .ok());
  }
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
  const auto& started = families.at("mmud_grpc_server_started_total");
  EXPECT_EQ(Value(started, "/mmud.v1.VmService/GetVm"), 2);
  EXPECT_EQ(Value(started, "other"), 2);
}

}  // namespace
}  // namespace mmud
