#include "server/metrics/process_metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <map>
#include <string>

#include "gtest/gtest.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/metric_type.h"
#include "server/base/wall_time.h"
#include "server/metrics/metric_writer.h"

namespace mmud {
namespace {

std::map<std::string, double> Write() {
  MetricWriter writer;
  WriteProcessMetrics(&writer);
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : writer.Take()) {
    EXPECT_EQ(family.metric.size(), 1u) << family.name;
    values[family.name] = family.type == prometheus::MetricType::Counter
                              ? family.metric[0].counter.value
                              : family.metric[0].gauge.value;
  }
  return values;
}

TEST(ProcessMetricsTest, StatIsReadFromBehindTheProgramsName) {
  const auto stat = ParseProcessStat(
      "4711 (a ) b) S 1 2 3 4 5 6 7 8 9 10 140 15 16 17 20 0 21 0 2200 23000 "
      "24 18446744073709551615 1 1 0\n");
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->cpu_ticks, 155u);
  EXPECT_EQ(stat->threads, 21u);
  EXPECT_EQ(stat->start_ticks, 2200u);
  EXPECT_EQ(stat->virtual_bytes, 23000u);
  EXPECT_EQ(stat->resident_pages, 24u);
}

TEST(ProcessMetricsTest, WhatIsNoStatIsNotGuessed) {
  for (const char* text : {"", "1", "1 (a", "1 (a) S 2 3",
                           "1 (a) S 1 2 3 4 5 6 7 8 9 10 x 15 16 17 20 0 21 0 "
                           "2200 23000 24"}) {
    EXPECT_FALSE(ParseProcessStat(text).has_value()) << text;
  }
}

TEST(ProcessMetricsTest, FiguresAreThoseOfThisProcess) {
  const std::map<std::string, double> before = Write();
  for (const char* name :
       {"process_cpu_seconds_total", "process_resident_memory_bytes",
        "process_virtual_memory_bytes", "process_threads",
        "process_start_time_seconds", "process_open_fds", "process_max_fds"}) {
    ASSERT_EQ(before.count(name), 1u) << name;
  }
  EXPECT_GE(before.at("process_virtual_memory_bytes"),
            before.at("process_resident_memory_bytes"));
  EXPECT_GE(before.at("process_resident_memory_bytes"), 1 << 20);
  const double now = static_cast<double>(WallTime::Now().unix_nanos()) * 1e-9;
  EXPECT_LE(before.at("process_start_time_seconds"), now + 2);
  EXPECT_GE(before.at("process_start_time_seconds"), now - 86'400);
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(Write().at("process_open_fds"), before.at("process_open_fds") + 1);
  close(fd);
  EXPECT_EQ(Write().at("process_open_fds"), before.at("process_open_fds"));
}

}  // namespace
}  // namespace mmud
