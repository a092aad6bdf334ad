// mmuctl ager: what reaches the daemon, and what is printed.

#include <string>
#include <vector>

#include "client/mmuctl/fake_aging_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {
namespace {

TEST(AgerCommandTest, WithoutOptionsItIsShown) {
  FakeAging daemon;
  daemon.ager.mutable_interval()->set_seconds(12);
  daemon.ager.set_changed_ratio(0.25);
  daemon.ager.set_generation_count(7);
  daemon.ager.set_failed_count(1);
  daemon.ager.set_last_error("no memory");
  const Result result = daemon.Run({"ager", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_FALSE(daemon.ager_update.has_settings());
  EXPECT_EQ(result.out,
            "VM:           vms/alpha\n"
            "ager:         off\n"
            "budget:       2% of a processor\n"
            "interval:     1s to 1m, now 12s\n"
            "examines:     MMUs that age fast, every page\n"
            "changed:      25.0% of the young pages between the last two "
            "generations\n"
            "generations:  7 made, 1 failed\n"
            "CPU time:     0\n"
            "last error:   no memory\n");
}

TEST(AgerCommandTest, OnlyGivenSettingsAreSent) {
  FakeAging daemon;
  Result result = daemon.Run({"ager", "alpha", "--on"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "ager:         on\n")) << result.out;
  EXPECT_EQ(daemon.ager_update.vm(), "vms/alpha");
  v1::AgerSettings expected;
  expected.set_enabled(true);
  EXPECT_EQ(daemon.ager_update.settings().DebugString(),
            expected.DebugString());

  result = daemon.Run({"ager", "alpha", "--off", "--cpu-percent", "5",
                       "--min-interval", "500ms", "--max-interval", "30s",
                       "--may-lock", "--look-around"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  expected.set_enabled(false);
  expected.set_cpu_percent(5);
  expected.mutable_min_interval()->set_nanos(500'000'000);
  expected.mutable_max_interval()->set_seconds(30);
  expected.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  expected.set_scope(v1::GENERATION_SCOPE_LOOK_AROUND);
  EXPECT_EQ(daemon.ager_update.settings().DebugString(),
            expected.DebugString());
  EXPECT_TRUE(Contains(result.out, "all MMUs, one page of each 64"))
      << result.out;

  result = daemon.Run({"ager", "alpha", "--lockless", "--every-page"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  expected.Clear();
  expected.set_lock_mode(v1::AGING_LOCK_MODE_LOCKLESS_ONLY);
  expected.set_scope(v1::GENERATION_SCOPE_EVERY_PAGE);
  EXPECT_EQ(daemon.ager_update.settings().DebugString(),
            expected.DebugString());
}

TEST(AgerCommandTest, ContradictionsAndWrongValuesAreUsageErrors) {
  FakeAging daemon;
  for (const std::vector<std::string>& options :
       std::vector<std::vector<std::string>>{{"--on", "--off"},
                                             {"--may-lock", "--lockless"},
                                             {"--look-around", "--every-page"},
                                             {"--cpu-percent", "0"},
                                             {"--min-interval", "inf"},
                                             {"--max-interval", "-1s"}}) {
    std::vector<std::string> line = {"ager", "alpha"};
    line.insert(line.end(), options.begin(), options.end());
    EXPECT_EQ(daemon.Run(line).exit_code, kExitUsage) << options[0];
  }
  EXPECT_FALSE(daemon.ager_update.has_settings());
}

}  // namespace
}  // namespace mmud::client
