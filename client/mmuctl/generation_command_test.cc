// mmuctl generation: what reaches the daemon, and what is printed.

#include <string>
#include <vector>

#include "client/mmuctl/fake_aging_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(GenerationCommandTest, ItIsPrintedWhenItHasEnded) {
  FakeAging daemon;
  const Result result = daemon.Run({"generation", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.generation.vm(), "vms/alpha");
  EXPECT_FALSE(daemon.generation.request_id().empty());
  EXPECT_EQ(daemon.generation.lock_mode(), v1::AGING_LOCK_MODE_UNSPECIFIED);
  EXPECT_EQ(daemon.generation.cpu_percent(), 0);
  EXPECT_TRUE(Contains(result.out, "generation:  1\n")) << result.out;
  EXPECT_TRUE(Contains(result.out, "16 KiB, 4 of 8 examined pages (50.0%)\n"))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "2.00 ms, 1.00 ms of it on a processor\n"))
      << result.out;
}

TEST(GenerationCommandTest, OptionsReachTheDaemon) {
  FakeAging daemon;
  Result result = daemon.Run({"generation", "alpha", "--may-lock",
                              "--look-around", "--cpu-percent", "20"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.generation.lock_mode(), v1::AGING_LOCK_MODE_MAY_LOCK);
  EXPECT_EQ(daemon.generation.scope(), v1::GENERATION_SCOPE_LOOK_AROUND);
  EXPECT_EQ(daemon.generation.cpu_percent(), 20);
  result = daemon.Run({"generation", "alpha", "--fast-or-fail"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.generation.slow_mmus(), v1::SLOW_MMUS_REFUSE);
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{
           {"generation", "alpha", "--fast-or-fail", "--may-lock"},
           {"generation", "alpha", "--cpu-percent", "0"},
           {"generation", "alpha", "--cpu-percent", "101"}}) {
    EXPECT_EQ(daemon.Run(line).exit_code, kExitUsage);
  }
}

TEST(GenerationCommandTest, ACancelledOneIsPrintedWithItsError) {
  FakeAging daemon;
  daemon.cancelled = true;
  const Result result = daemon.Run({"generation", "alpha"});
  EXPECT_EQ(result.exit_code, kExitCancelled);
  EXPECT_TRUE(Contains(result.out, "coverage:    the scan ended early"))
      << result.out;
  EXPECT_TRUE(Contains(result.err, "error: it was cancelled")) << result.err;
}

TEST(GenerationCommandTest, JsonIsTheOperation) {
  FakeAging daemon;
  const Result result = daemon.Run({"--json", "generation", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["response"]["sequence"], 1) << result.out;
  EXPECT_EQ(json["done"], true) << result.out;
}

TEST(GenerationCommandTest, TheOperationHasAKind) {
  FakeAging daemon;
  ASSERT_EQ(daemon.Run({"generation", "alpha"}).exit_code, kExitOk);
  const Result result =
      daemon.Run({"op", "wait", "1f9619ff-8b86-4d01-b42d-00cf4fc964ff"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "kind:        generation\n")) << result.out;
  EXPECT_TRUE(Contains(result.out, "1 MiB of 1 MiB, 4 pages young"))
      << result.out;
}

}  // namespace
}  // namespace mmud::client
