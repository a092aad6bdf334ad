#include "client/top/json_view.h"

#include "client/text/message_json.h"
#include "client/top/columns.h"
#include "client/top/example_test_util.h"
#include "client/top/model.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(TopJson, HasTheNewestSampleWithItsRates) {
  const Json json = TopJson(ExampleModel(), SortKey::kFaults);
  EXPECT_EQ(json["schema"], "mmud.top/1");
  EXPECT_EQ(json["time"], "2026-12-04T12:00:22Z");
  EXPECT_EQ(json["call_count"], 5);
  ASSERT_EQ(json["vms"].size(), 3u);
  const Json& alpha = json["vms"][0];
  EXPECT_EQ(alpha["vm"], "vms/alpha");
  EXPECT_EQ(alpha["rates"]["interval"], "2s");
  EXPECT_EQ(alpha["rates"]["unique_pages_per_second"], 10'500);
  EXPECT_EQ(alpha["rates"]["stalls_by_cause"].size(), 6u);
  EXPECT_EQ(alpha["dirty_log"]["in_flight_page_count"], 8'670);
  EXPECT_EQ(alpha["dirty_log"]["lease_expire_time"], "2026-12-04T12:00:50Z");
  EXPECT_EQ(alpha["operations"][0]["remaining_time"], "13s");
  EXPECT_EQ(alpha["paused_since"], nullptr);
  EXPECT_EQ(json["vms"][1]["vm"], "vms/gamma-with-a-name-that-is-long");
  EXPECT_EQ(json["vms"][2]["paused_since"], "2026-12-04T11:59:00Z");
  EXPECT_EQ(json["vms"][2]["dirty_log"], nullptr);
}

TEST(TopJson, AVmOfOneSampleHasNoRates) {
  const Json json = TopJson(ExampleModel(1), SortKey::kName);
  EXPECT_EQ(json["vms"][0]["rates"], nullptr);
}

}  // namespace
}  // namespace mmud::client
