// mmuctl workload: what reaches the daemon, and what is printed.

#include <string>
#include <vector>

#include "client/mmuctl/fake_daemon_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(WorkloadCommandsTest, PatternsAreFilledIn) {
  FakeDaemon daemon;
  const Result result = daemon.Run(
      {"workload", "start", "alpha", "--pattern", "zipf", "--exponent", "1.2",
       "--write-fraction", "0.5", "--rate", "1000", "--duration", "30s"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.start.vm(), "vms/alpha");
  const lab::v1::Workload& workload = daemon.start.workload();
  EXPECT_EQ(workload.pattern().zipf().exponent(), 1.2);
  EXPECT_EQ(workload.pattern().write_fraction(), 0.5);
  EXPECT_EQ(workload.max_accesses_per_second(), 1000);
  EXPECT_EQ(workload.max_duration().seconds(), 30);
}

TEST(WorkloadCommandsTest, AWorkloadIsNamedByItsVm) {
  FakeDaemon daemon;
  Result result = daemon.Run({"workload", "status", "beta"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "vms/beta/workloads/3f9619ff-"))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "running\n")) << result.out;
  EXPECT_TRUE(Contains(result.out, "25.0%")) << result.out;
  result = daemon.Run({"workload", "stop", "beta"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.stopped, WorkloadOf("vms/beta").name());
  EXPECT_TRUE(Contains(result.out, "stopped\n")) << result.out;
  daemon.stopped.clear();

  result = daemon.Run({"workload", "status", "idle"});
  EXPECT_EQ(result.exit_code, kExitNotFound);
  EXPECT_TRUE(Contains(result.err, "vms/idle has no workload")) << result.err;
  result = daemon.Run({"workload", "stop", "idle"});
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_TRUE(Contains(result.err, "WORKLOAD_NOT_RUNNING")) << result.err;
  EXPECT_EQ(daemon.stopped, "");
}

TEST(WorkloadCommandsTest, AWatchedWorkloadIsPrintedAtItsEndWithItsError) {
  FakeDaemon daemon;
  const std::vector<std::string> line = {"workload",  "start",   "alpha",
                                         "--pattern", "uniform", "--watch"};
  Result result = daemon.Run(line);
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "completed\n")) << result.out;
  EXPECT_TRUE(Contains(result.out, "100.0%")) << result.out;
  daemon.failure.set_code(grpc::StatusCode::RESOURCE_EXHAUSTED);
  daemon.failure.set_message("too few pages");
  result = daemon.Run(line);
  EXPECT_EQ(result.exit_code, kExitExhausted);
  EXPECT_TRUE(Contains(result.out, "failed: too few pages\n")) << result.out;
  EXPECT_TRUE(Contains(result.err, "error: too few pages")) << result.err;
  // Without --watch the command prints the workload's present state.
  result = daemon.Run(
      {"workload", "start", "alpha", "--pattern", "uniform", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["name"], WorkloadOf("vms/alpha").name()) << result.out;
  EXPECT_EQ(json["state"], "WORKLOAD_STATE_RUNNING") << result.out;
}

}  // namespace
}  // namespace mmud::client
