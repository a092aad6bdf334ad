#include "server/metrics/mmu_metrics_writer.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/stats/counter_table.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/vcpu_stats_snapshot.h"
#include "mmu_core/stats/vm_stats.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

using Families = std::map<std::string, prometheus::MetricFamily>;
using Labels = std::map<std::string, std::string>;

Families Write(const MmuTotals& totals) {
  MetricWriter writer;
  WriteMmuMetrics(totals, &writer);
  Families families;
  for (prometheus::MetricFamily& family : writer.Take()) {
    EXPECT_TRUE(families.emplace(family.name, family).second)
        << family.name << " appears twice";
  }
  return families;
}

Labels LabelsOf(const prometheus::ClientMetric& metric) {
  Labels labels;
  for (const auto& label : metric.label) labels[label.name] = label.value;
  return labels;
}

// Puts a 3 into each number, and a value into each histogram.
template <typename Snapshot, typename Rows>
void Fill(const Rows& rows, Snapshot& snapshot) {
  for (const auto& row : rows) {
    row.ForEach([&](const mmu::CounterIndex& i) {
      if (row.histogram == nullptr) {
        row.Value(snapshot, i) = 3;
      } else {
        row.Histogram(snapshot, i).Record(1000);
      }
    });
  }
}

mmu::VmStatsSnapshot Filled() {
  mmu::VmStatsSnapshot stats;
  Fill(mmu::VmCounterRows(), stats);
  Fill(mmu::VcpuCounterRows(), stats.vcpus);
  return stats;
}

// Expects that `families` has this counter: one series for each combination of
// its labels, besides the series in `first`.
template <typename Row>
void ExpectMetric(const Families& families, const Row& row,
                  const mmu::CounterMetric& metric, const Labels& first) {
  if (metric.family.empty()) return;
  const std::string name = "mmud_" + std::string(metric.family);
  SCOPED_TRACE(name);
  const auto family = families.find(name);
  ASSERT_NE(family, families.end());
  EXPECT_EQ(family->second.help, metric.help);
  using Type = prometheus::MetricType;
  const Type type = row.histogram != nullptr ? Type::Histogram
                    : row.kind == mmu::CounterKind::kCumulative ? Type::Counter
                                                                : Type::Gauge;
  EXPECT_EQ(family->second.type, type);
  size_t values = 0;
  row.ForEach([&](const mmu::CounterIndex& i) {
    ++values;
    Labels labels = first;
    for (int k = 0; k < mmu::kMaxCounterLabels; ++k) {
      if (row.labels[k] == nullptr) break;
      labels[std::string(row.labels[k]->name)] = row.labels[k]->value(i[k]);
    }
    const auto& series = family->second.metric;
    EXPECT_EQ(
        std::count_if(series.begin(), series.end(),
                      [&](const auto& one) { return LabelsOf(one) == labels; }),
        1);
  });
  EXPECT_EQ(family->second.metric.size(), values);
}

TEST(MmuMetricsWriterTest, EachCounterWithAMetricIsExported) {
  MmuTotals totals;
  totals.stats = Filled();
  Fill(mmu::ProcessCounterRows(), totals.process);
  totals.vm_series.push_back({"vms/a", Filled()});
  const Families families = Write(totals);
  const auto expect = [&families](const auto& rows) {
    for (const auto& row : rows) {
      ExpectMetric(families, row, row.metric, {});
      ExpectMetric(families, row, row.vm_metric, {{"vm", "vms/a"}});
    }
  };
  expect(mmu::VmCounterRows());
  expect(mmu::VcpuCounterRows());
  expect(mmu::ProcessCounterRows());
}

TEST(MmuMetricsWriterTest, ALimitOnPageTablesAppearsOnlyIfThereIsOne) {
  MmuTotals totals;
  EXPECT_EQ(Write(totals).count("mmud_page_tables_limit"), 0u);
  totals.process.page_tables_limit = 512;
  const Families families = Write(totals);
  const auto& series = families.at("mmud_page_tables_limit").metric;
  ASSERT_EQ(series.size(), 1u);
  EXPECT_EQ(series[0].gauge.value, 512);
}

TEST(MmuMetricsWriterTest, WhatMostlyNeverOccursAppearsWithItsFirstEvent) {
  MmuTotals totals;
  EXPECT_EQ(Write(totals).count("mmud_tlb_flushes_total"), 0u);
  totals.stats.flush.flushes[static_cast<int>(mmu::MmuKind::kShadow)]
                            [static_cast<int>(mmu::FlushScope::kRange)]
                            [static_cast<int>(mmu::FlushReason::kUnsync)] = 2;
  const Families families = Write(totals);
  const auto family = families.find("mmud_tlb_flushes_total");
  ASSERT_NE(family, families.end());
  ASSERT_EQ(family->second.metric.size(), 1u);
  EXPECT_EQ(
      LabelsOf(family->second.metric[0]),
      (Labels{{"scope", "range"}, {"reason", "unsync"}, {"mmu", "shadow"}}));
  EXPECT_EQ(family->second.metric[0].counter.value, 2);
}

TEST(MmuMetricsWriterTest, TimesAreInSeconds) {
  MmuTotals totals;
  totals.stats.vcpus.stall_nanos[static_cast<int>(mmu::StallCause::kLock)] =
      2'500'000'000;
  const Families families = Write(totals);
  double lock = 0;
  for (const auto& series :
       families.at("mmud_vcpu_stall_seconds_total").metric) {
    if (LabelsOf(series).at("cause") == "lock") lock = series.counter.value;
  }
  EXPECT_DOUBLE_EQ(lock, 2.5);
}

TEST(MmuMetricsWriterTest, VmsWithoutSeriesShareOne) {
  MmuTotals totals;
  EXPECT_EQ(Write(totals).count("mmud_dirty_pages_total"), 0u);
  totals.other_dirty_pages = 7;
  const Families families = Write(totals);
  const auto& series = families.at("mmud_dirty_pages_total").metric;
  ASSERT_EQ(series.size(), 1u);
  EXPECT_EQ(LabelsOf(series[0]), (Labels{{"vm", "_other"}}));
  EXPECT_EQ(series[0].counter.value, 7);
}

}  // namespace
}  // namespace mmud
