// mmuctl op and mmuctl split: which operation is meant, and what reaches it.

#include <signal.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/mmuctl/fake_daemon_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "gtest/gtest.h"
#include "mmud/v1/split_service.grpc.pb.h"

namespace mmud::client {
namespace {

TEST(OperationCommandsTest, LimitsThatAreNotGivenAreNotSent) {
  FakeDaemon daemon;
  v1::Throttle expected;
  expected.mutable_max_lock_hold()->set_nanos(50'000);
  Result result =
      daemon.Run({"split", "update", "2f", "--max-lock-hold", "50us"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.throttle.DebugString(), expected.DebugString());
  // An explicit 0 is sent and removes the limit.
  expected.Clear();
  expected.set_max_flushes_per_second(0);
  result =
      daemon.Run({"split", "update", "2f", "--max-flushes-per-second", "0"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.throttle.DebugString(), expected.DebugString());
  EXPECT_EQ(daemon.Run({"split", "update", "2f"}).exit_code, kExitUsage);
}

TEST(OperationCommandsTest, AnEtagOfTheUsersIsSent) {
  FakeDaemon daemon;
  const Result result = daemon.Run(
      {"split", "update", "2f", "--min-pause", "5s", "--etag", "old"});
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_FALSE(daemon.throttle.has_min_pause());
}

TEST(OperationCommandsTest, SplitCommandsLeaveARecoveryAlone) {
  FakeDaemon daemon;
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{
           {"split", "watch", "1"},
           {"split", "cancel", "1"},
           {"split", "update", "1", "--min-pause", "1s"}}) {
    const Result result = daemon.Run(line);
    EXPECT_EQ(result.exit_code, kExitConflict) << result.err;
    EXPECT_TRUE(
        Contains(result.err, absl::StrCat(kRecovery,
                                          " is no split but a recover of "
                                          "vms/alpha; see mmuctl ")))
        << result.err;
    EXPECT_TRUE(Contains(result.err, "op wait 1f9619ff")) << result.err;
  }
  EXPECT_EQ(daemon.cancels, 0);
}

TEST(OperationCommandsTest, AnOperationIsNamedByItsBeginningOrItsVm) {
  FakeDaemon daemon;
  const struct {
    const char* text;
    const char* name;
  } kCases[] = {
      {"2f96", kSplit},
      {"2F96", kSplit},
      {"operations/1", kRecovery},
      // The split is still running; a newer operation of alpha is not.
      {"alpha", kSplit},
      {"vms/beta", kRecovery},
      // A complete UUID is passed on unchecked, since only the daemon knows
      // whether it exists.
      {"3f9619ff-8b86-4d01-b42d-00cf4fc964ff",
       "operations/3f9619ff-8b86-4d01-b42d-00cf4fc964ff"},
  };
  for (const auto& given : kCases) {
    daemon.cancelled.clear();
    const Result result = daemon.Run({"op", "cancel", given.text});
    EXPECT_EQ(result.exit_code, kExitOk) << result.err;
    EXPECT_EQ(daemon.cancelled, given.name) << given.text;
  }
  daemon.cancelled.clear();
  const Result several = daemon.Run({"op", "cancel", "2"});
  EXPECT_EQ(several.exit_code, kExitRefused) << several.err;
  EXPECT_TRUE(Contains(several.err, kSplit)) << several.err;
  EXPECT_TRUE(Contains(several.err, kOlderSplit)) << several.err;
  const Result none = daemon.Run({"op", "cancel", "gamma"});
  EXPECT_EQ(none.exit_code, kExitNotFound) << none.err;
  EXPECT_TRUE(Contains(none.err, "vms/gamma; list the operations")) << none.err;
  EXPECT_EQ(daemon.cancelled, "");
}

TEST(OperationCommandsTest, OperationsAreFilteredByTheDaemonAndHaveTimes) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"op", "ls", "--vm", "alpha", "--kind", "split", "--running",
                  "--filter", "start_time > \"2026-11-21T08:00:00Z\""});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.filter,
            "vm = \"vms/alpha\" AND method = SplitHugePages AND done = false "
            "AND start_time > \"2026-11-21T08:00:00Z\"");
  EXPECT_TRUE(Contains(result.out, "2026-11-18 11:06:40 UTC  90.0 s"))
      << result.out;
}

TEST(WatchTest, CtrlCIsLeftAloneWhereStandardErrorIsForAnErrorOnly) {
  FakeDaemon daemon;
  struct sigaction before = {};
  sigaction(SIGINT, nullptr, &before);
  for (const char* flag : {"--json", "--quiet"}) {
    const Result result = daemon.Run({flag, "op", "wait", kSplit + 11});
    EXPECT_EQ(result.exit_code, kExitOk) << result.err;
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(daemon.interrupt_while_watched.sa_handler, before.sa_handler)
        << flag;
  }
  const Result result = daemon.Run({"op", "wait", kSplit + 11});
  EXPECT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_NE(daemon.interrupt_while_watched.sa_handler, before.sa_handler);
}

}  // namespace
}  // namespace mmud::client
