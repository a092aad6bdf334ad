#include "client/migration_report.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "client/order_outcome.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using Json = nlohmann::json;

MigrationReport Example() {
  MigrationReport report;
  report.vm = "vms/quickstart";
  report.trace = "sort.trace";
  report.log_id = "0123456789abcdef0123456789abcdef";
  report.owner = "the first";
  report.memory_bytes = int64_t{4} << 30;
  report.vcpu_count = 2;
  report.bandwidth_bytes_per_second = 125'000'000;
  report.downtime_target = absl::Milliseconds(300);
  report.pages_before.set_pages_1g_count(2);
  report.converged = true;
  report.order = "coldest-first";
  report.sent_page_count = 1'050'000;
  report.resent_page_count = 1424;
  MigrationRound round;
  round.name = "baseline";
  round.epoch = 1;
  round.page_count = 1'048'576;
  round.in_flight_page_count = 1024;
  round.cost.set_tlb_flush_count(3);
  round.wall_time = absl::Milliseconds(1500);
  report.rounds = {round};
  report.compared_bytes = report.memory_bytes;
  report.equal = true;
  report.metrics_address = "http://127.0.0.1:9090/metrics";
  return report;
}

TEST(MigrationReportTest, VerdictOfEqualMemoryIsOneLine) {
  EXPECT_EQ(Verdict(Example()),
            "guest memory and copy are equal: 4294967296 bytes\n");
}

TEST(MigrationReportTest, VerdictOfDifferentMemoryNamesThePages) {
  MigrationReport report = Example();
  report.equal = false;
  report.different_page_count = 3;
  report.differences.resize(1);
  report.differences[0].gpa_bytes = 0x5000;
  report.differences[0].gfn = 5;
  const std::string verdict = Verdict(report);
  EXPECT_NE(verdict.find("differs: gpa 0x5000 (slot 0, gfn 0x5"),
            std::string::npos);
  EXPECT_NE(verdict.find("differ: 3 pages of 1048576\n"), std::string::npos);
  EXPECT_EQ(verdict.find("are equal"), std::string::npos);
}

TEST(MigrationReportTest, MemoryThatWasNotAllComparedIsNotEqual) {
  MigrationReport report = Example();
  report.equal = false;
  report.compared_bytes = 4096;
  EXPECT_NE(Verdict(report).find("only 4096 of 4294967296 bytes"),
            std::string::npos);
}

TEST(MigrationReportTest, TextHasEveryRoundAndTheMetrics) {
  const std::string text = ToText(Example());
  EXPECT_NE(text.find("baseline      1    1,048,576"), std::string::npos)
      << text;
  EXPECT_NE(text.find("1,024\n"), std::string::npos) << "in flight: " << text;
  EXPECT_NE(text.find("http://127.0.0.1:9090/metrics"), std::string::npos);
  EXPECT_NE(text.find("converged"), std::string::npos);
}

TEST(MigrationReportTest, TablesOfRoundsFitA100ColumnScreen) {
  MigrationReport report = Example();
  MigrationRound& round = report.rounds[0];
  round.page_count = 268'435'456;
  round.remaining_page_count = 268'435'456;
  round.in_flight_page_count = 268'435'456;
  round.sent_bytes = int64_t{1023} << 30;
  round.wall_time = absl::Seconds(8796);
  round.harvest_time = absl::Milliseconds(34.5);
  round.transfer_time = absl::Seconds(8796);
  round.vcpu_stall = absl::Milliseconds(6.47);
  round.cost.set_tlb_flush_count(4096);
  round.cost.set_vcpus_kicked_count(4096);
  int rows = 0;
  for (const absl::string_view line : absl::StrSplit(ToText(report), '\n')) {
    if (!absl::StartsWith(line, "ROUND") &&
        !absl::StartsWith(line, "baseline")) {
      continue;
    }
    ++rows;
    EXPECT_LE(line.size(), 100u) << line;
  }
  EXPECT_EQ(rows, 4);
}

TEST(MigrationReportTest, PagesSentAgainAreCounted) {
  MigrationReport report = Example();
  report.rounds[0].sent_bytes = 1 << 20;
  report.migration_time = absl::Seconds(2);
  EXPECT_NE(ToText(report).find("1,050,000 pages, 1,424 of them again, 1 MiB "
                                "in 2.00 s; order coldest-first\n"),
            std::string::npos)
      << ToText(report);
  report.heat_problem = "no ager";
  EXPECT_NE(
      ToText(report).find("; order coldest-first (not always: no ager)\n"),
      std::string::npos)
      << ToText(report);
  const Json sent = Json::parse(ToJson(report)).at("sent");
  EXPECT_EQ(sent.at("order"), "coldest-first");
  EXPECT_EQ(sent.at("heat_problem"), "no ager");
  EXPECT_EQ(sent.at("page_count"), 1'050'000);
  EXPECT_EQ(sent.at("resent_page_count"), 1424);
  EXPECT_EQ(sent.at("size_bytes"), 1 << 20);
  EXPECT_EQ(sent.at("migration_seconds"), 2.0);
}

TEST(MigrationReportTest, OrdersAreComparedIfTheyWereTried) {
  MigrationReport report = Example();
  EXPECT_EQ(ToText(report).find("short migrations"), std::string::npos);
  EXPECT_TRUE(Json::parse(ToJson(report)).at("orders").empty());
  report.orders.resize(2);
  report.orders[0].workload = "sort.trace";
  report.orders[0].order = "ascending";
  report.orders[0].resent_page_count = 100;
  report.orders[1] = report.orders[0];
  report.orders[1].order = "coldest-first";
  report.orders[1].resent_page_count = 20;
  report.orders[1].migration_time = absl::Milliseconds(1500);
  const std::string text = ToText(report);
  EXPECT_NE(text.find("a guest that repeats sort.trace:\n\nORDER  "),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("coldest-first sends 80 % fewer pages again"),
            std::string::npos)
      << text;
  const Json orders = Json::parse(ToJson(report)).at("orders");
  ASSERT_EQ(orders.size(), 2u);
  EXPECT_EQ(orders[1].at("order"), "coldest-first");
  EXPECT_EQ(orders[1].at("resent_page_count"), 20);
  EXPECT_EQ(orders[1].at("migration_seconds"), 1.5);
}

TEST(MigrationReportTest, OwnerIsNamedAndWhomTheLogWasTakenFrom) {
  MigrationReport report = Example();
  EXPECT_NE(ToText(report).find(
                "0123456789abcdef0123456789abcdef, owned by the first\n"),
            std::string::npos);
  report.former_owner = "the dead one";
  EXPECT_NE(ToText(report).find("the first, taken over from the dead one\n"),
            std::string::npos);
  EXPECT_EQ(Json::parse(ToJson(report))["dirty_log"]["former_owner"],
            "the dead one");
}

TEST(MigrationReportTest, AnMmuThatIsNotTheUsualOneIsNamed) {
  MigrationReport report = Example();
  EXPECT_EQ(ToText(report).find(", mmu"), std::string::npos);
  report.mmu = "nested";
  EXPECT_NE(ToText(report).find("running sort.trace, mmu nested\n"),
            std::string::npos);
}

TEST(MigrationReportTest, JsonHasAllFieldsWithTheirTypes) {
  const Json json = Json::parse(ToJson(Example()));
  EXPECT_EQ(json.at("schema"), "mmud.migration_report/3");
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"aging",
                                            "bandwidth_bytes_per_second",
                                            "comparison",
                                            "converged",
                                            "dirty_log",
                                            "downtime_target_seconds",
                                            "estimated_downtime_seconds",
                                            "guest",
                                            "mapped_pages",
                                            "memory_bytes",
                                            "metrics_address",
                                            "mmu",
                                            "orders",
                                            "rounds",
                                            "schema",
                                            "sent",
                                            "split",
                                            "start_dirty_log",
                                            "total_seconds",
                                            "trace",
                                            "vcpu_count",
                                            "vm"}));
  EXPECT_EQ(json["memory_bytes"], int64_t{4} << 30);
  EXPECT_EQ(json["mapped_pages"]["before_split"]["pages_1g_count"], 2);
  ASSERT_EQ(json["rounds"].size(), 1u);
  EXPECT_EQ(json["rounds"][0]["wall_seconds"], 1.5);
  EXPECT_EQ(json["rounds"][0]["epoch"], 1);
  EXPECT_EQ(json["rounds"][0]["in_flight_page_count"], 1024);
  EXPECT_EQ(json["dirty_log"]["owner"], "the first");
  EXPECT_EQ(json["rounds"][0]["cost"]["tlb_flush_count"], 3);
  EXPECT_EQ(json["comparison"]["equal"], true);
  EXPECT_TRUE(json["comparison"]["differences"].empty());
}

}  // namespace
}  // namespace mmud::client
