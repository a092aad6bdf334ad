// mmuctl hot: what is asked for, and what is printed.

#include <string>

#include "client/mmuctl/fake_aging_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(HotCommandTest, AllPagesOfTheListAreOneTable) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.AddGeneration();
  const Result result = daemon.Run({"hot", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.hot.vm(), "vms/alpha");
  EXPECT_EQ(daemon.hot.order(), v1::HEAT_ORDER_HOTTEST_FIRST);
  EXPECT_EQ(daemon.hot.page_size(), 100);
  EXPECT_EQ(result.out,
            "    GPA    SIZE  SLOT  GENERATION  AGE\n"
            "      0   4 KiB     0           2  0s - 10s\n"
            "0x10000   8 KiB     0           1  over 10s\n"
            "0x20000  12 KiB     0           -  never young\n"
            "0x30000  16 KiB     0           -  never young\n"
            "0x40000  20 KiB     0           -  never young\n"
            "5 ranges, 60 KiB; the newest generation is 2\n");
}

TEST(HotCommandTest, OptionsReachTheDaemon) {
  FakeAging daemon;
  daemon.AddGeneration();
  const Result result =
      daemon.Run({"hot", "alpha", "--coldest-first", "--granularity", "2m",
                  "--no-never-young", "--limit", "20000"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.hot.order(), v1::HEAT_ORDER_COLDEST_FIRST);
  EXPECT_EQ(daemon.hot.granularity(), v1::PAGE_SIZE_2M);
  EXPECT_TRUE(daemon.hot.exclude_never_young());
  EXPECT_EQ(daemon.hot.page_size(), 10'000);
  EXPECT_EQ(daemon.Run({"hot", "alpha", "--limit", "0"}).exit_code, kExitUsage);
}

TEST(HotCommandTest, TheLimitIsKept) {
  FakeAging daemon;
  daemon.AddGeneration();
  daemon.AddGeneration();
  // The daemon sends two ranges at a time.
  Result result = daemon.Run({"hot", "alpha", "--limit", "3"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out,
                       "3 ranges, 24 KiB; the newest generation is 2; there "
                       "are more ranges (--limit)\n"))
      << result.out;
  EXPECT_EQ(daemon.hot.page_token(), "xx");
  result = daemon.Run({"hot", "alpha", "--limit", "5"});
  EXPECT_FALSE(Contains(result.out, "more")) << result.out;
  result = daemon.Run({"--json", "hot", "alpha", "--limit", "4"});
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["ranges"].size(), 4u) << result.out;
  EXPECT_EQ(json["ranges"][1]["generation"], 1) << result.out;
  EXPECT_EQ(json["next_page_token"], "") << result.out;
}

}  // namespace
}  // namespace mmud::client
