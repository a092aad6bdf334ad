#include "client/comparison/json_view.h"

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/comparison/example_test_util.h"
#include "client/comparison/result.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

// The object, printed and parsed again.
Json ParsedBack(const Comparison& comparison) {
  const absl::StatusOr<Json> json = ViewAsJson(comparison);
  EXPECT_TRUE(json.ok()) << json.status();
  return json.ok() ? Json::parse(JsonText(*json), nullptr, false) : Json();
}

std::vector<std::string> KeysOf(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST(JsonViewTest, TheDocumentHasAStableSchema) {
  const Json json = ParsedBack(ExampleComparison());
  EXPECT_EQ(KeysOf(json),
            (std::vector<std::string>{"schema", "mmu", "memory_size_bytes",
                                      "host_page_size", "seed", "repeat_count",
                                      "time_limit", "load_accesses_per_second",
                                      "throttle", "results"}));
  EXPECT_EQ(json["schema"], "mmud.comparison/1");
  EXPECT_EQ(json["mmu"], "tdp");
  EXPECT_EQ(json["memory_size_bytes"], 8 << 20);
  EXPECT_EQ(json["host_page_size"], "PAGE_SIZE_2M");
  EXPECT_EQ(json["time_limit"], "60s");
  EXPECT_EQ(json["throttle"]["max_pages_per_second"], 500'000);
  ASSERT_EQ(json["results"].size(), 3u);
  for (const Json& result : json["results"]) {
    EXPECT_EQ(
        KeysOf(result),
        (std::vector<std::string>{
            "policy", "vcpu_count", "write_fraction", "vm", "split_ahead",
            "enable", "dirty", "stalls", "faults", "tlb_flush_request_count",
            "tlb_flush_count", "tlbi_count", "huge_pages"}));
  }
}

TEST(JsonViewTest, NumbersAreNumbersAndTimesAreStrings) {
  const Json lazy = ParsedBack(ExampleComparison())["results"][0];
  EXPECT_EQ(lazy["policy"], "lazy");
  EXPECT_EQ(lazy["vcpu_count"], 2);
  EXPECT_EQ(lazy["write_fraction"], 1.0);
  EXPECT_EQ(lazy["vm"], "vms/compare-tdp-lazy-1");
  EXPECT_TRUE(lazy["split_ahead"].is_null());
  EXPECT_EQ(lazy["enable"]["running_time"], "0.000250s");
  EXPECT_EQ(lazy["dirty"], Json::parse(R"({
      "running_time": "0.012s", "running_times": ["0.012s", "0.014s"],
      "limit_reached": false, "page_count": 2048,
      "earlier_page_count": 3, "access_count": 2048, "write_count": 2048,
      "all_written": true})"));
  EXPECT_EQ(lazy["faults"]["fast_count"], 2044);
  EXPECT_EQ(lazy["tlb_flush_request_count"], 3);
  EXPECT_EQ(lazy["tlb_flush_count"], 1);
  EXPECT_TRUE(lazy["tlbi_count"].is_null());
  EXPECT_EQ(lazy["stalls"]["p50"],
            Json::parse(R"({"more_than": "0s", "at_most": "0.000001s"})"));
  EXPECT_EQ(lazy["stalls"]["p99"], Json::parse(R"({"more_than": "0.000001s",
                            "at_most": "0.000004s"})"));
  EXPECT_EQ(lazy["stalls"]["histogram"]["observation_count"], 1000);
  EXPECT_EQ(lazy["stalls"]["time_by_cause"],
            Json::parse(R"({"flush": "0.000010s", "split": "0.000020s"})"));
  EXPECT_EQ(lazy["huge_pages"]["before"]["pages_2m_count"], 4);
  EXPECT_EQ(lazy["huge_pages"]["split_by_faults"]["split_2m_count"], 4);
}

TEST(JsonViewTest, WhatIsNotKnownIsNull) {
  const Json results = ParsedBack(ExampleComparison())["results"];
  EXPECT_TRUE(results[1]["tlb_flush_request_count"].is_null());
  EXPECT_TRUE(results[1]["tlb_flush_count"].is_null());
  EXPECT_TRUE(results[1]["huge_pages"]["split_ahead"].is_null());
  EXPECT_EQ(results[1]["stalls"]["p50"],
            Json::parse(R"({"more_than": "0.000016s", "at_most": null})"));
  EXPECT_TRUE(results[2]["stalls"]["p99_9"].is_null());
  EXPECT_TRUE(results[2]["huge_pages"]["split_by_faults"].is_null());
  EXPECT_EQ(results[2]["dirty"]["all_written"], false);

  Comparison untold = ExampleComparison();
  untold.results[0].pass.all_written.reset();
  EXPECT_TRUE(
      ParsedBack(untold)["results"][0]["dirty"]["all_written"].is_null());
}

TEST(JsonViewTest, ASplitAheadReportsItsPace) {
  const Json throttled = ParsedBack(ExampleComparison())["results"][2];
  EXPECT_EQ(throttled["split_ahead"]["page_count"], 2048);
  EXPECT_EQ(throttled["split_ahead"]["running_time"], "0.004s");
  EXPECT_EQ(throttled["split_ahead"]["pages_per_second"], 512'000);
  EXPECT_EQ(throttled["huge_pages"]["split_ahead"]["split_2m_count"], 4);
}

}  // namespace
}  // namespace mmud::client
