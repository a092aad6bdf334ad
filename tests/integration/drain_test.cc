// The end of a daemon: SIGTERM during work, SIGKILL, and a second daemon on the
// same addresses.

#include <signal.h>
#include <sys/stat.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using HealthStub = grpc::health::v1::Health::Stub;
using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

TEST(DrainTest, SigtermEndsStreamsSplitsAndWorkloads) {
  Daemon daemon({"--drain-timeout=1h"});
  const TestClient& client = daemon.client();
  const Guest busy(client, "busy", {MakeSlot(64 * kMiB)}, 2);
  busy.WritePages(64 * kMiB / kPage);
  const std::string workload = busy.StartRandomWrites(1);
  const Guest huge(
      client, "huge",
      {MakeSlot(kGiB, v1::MEMORY_BACKING_METADATA_ONLY, v1::PAGE_SIZE_1G)});
  huge.ReadWords(kGiB, kGiB);
  v1::SplitHugePagesRequest split;
  split.mutable_throttle()->set_max_pages_per_second(1000);
  huge.StartSplit(split);

  // A stream that has more to send than fits into its flow-control window. The
  // client reads once.
  grpc::ClientContext context;
  SetTimeout(kCallTimeout, &context);
  v1::GuestMemoryService::Stub memory(client.channel());
  v1::ReadPagesRequest read;
  read.set_vm(busy.name());
  read.add_extents()->set_size_bytes(64 * kMiB);
  const auto pages = memory.ReadPages(&context, read);
  v1::ReadPagesResponse response;
  ASSERT_TRUE(pages->Read(&response));

  daemon.process().Signal(SIGTERM);
  // The client reads on. It gets the buffered messages and then the complete
  // status.
  while (pages->Read(&response)) {
  }
  const grpc::Status ended = pages->Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonOf(ended), "DRAINING");
  EXPECT_TRUE(FactsOf(ended).has_retry_info);
  EXPECT_EQ(daemon.process().Wait(absl::Minutes(1)), 0)
      << daemon.process().Err();
  const std::string log = daemon.process().Err();
  EXPECT_TRUE(absl::StrContains(log, "operation parked")) << log;
  const size_t end = log.find("workload ended workload=" + workload +
                              " vm=vms/busy state=stopped ");
  EXPECT_NE(end, log.npos) << log;
  EXPECT_LT(end, log.find("info stopped uptime=")) << log;
}

TEST(DrainTest, NewWorkIsRefusedWithTheReasonAndASecondSignalEndsIt) {
  // The drain lasts until the end of the test.
  Daemon daemon({"--drain-timeout=1h", "--min-drain=1h"});
  const TestClient& client = daemon.client();
  const Guest busy(client, "busy", {MakeSlot(kMiB)});

  // This client watches the daemon's health.
  grpc::ClientContext watch_context;
  SetTimeout(kCallTimeout, &watch_context);
  HealthStub health(client.channel());
  const auto watch =
      health.Watch(&watch_context, grpc::health::v1::HealthCheckRequest());
  grpc::health::v1::HealthCheckResponse state;
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::SERVING);

  daemon.process().Signal(SIGTERM);
  ASSERT_TRUE(watch->Read(&state));
  EXPECT_EQ(state.status(), grpc::health::v1::HealthCheckResponse::NOT_SERVING);

  EXPECT_EQ(client.Health(), "NOT_SERVING");
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/readyz").code, 503);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 200);
  EXPECT_TRUE(absl::StrContains(daemon.MetricsText(), "\nmmud_draining 1\n"));
  for (const auto& [method, request] :
       {std::pair<std::string, std::string>{"mmud.v1.VmService/CreateVm",
                                            "vm_id: 'new' vm { tdp {} }"},
        {"mmud.lab.v1.WorkloadService/StartWorkload",
         "vm: 'vms/busy' workload { pattern { uniform {} } }"},
        {"mmud.v1.SplitService/SplitHugePages", "vm: 'vms/busy'"},
        {"mmud.v1.DirtyLogService/StartDirtyLog", "vm: 'vms/busy'"}}) {
    const grpc::Status refused = client.CallText(method, request).status;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::UNAVAILABLE) << method;
    EXPECT_EQ(ReasonOf(refused), "DRAINING") << method;
    EXPECT_TRUE(FactsOf(refused).has_retry_info) << method;
  }
  watch_context.TryCancel();
  daemon.process().Signal(SIGTERM);
  EXPECT_EQ(daemon.process().Wait(absl::Minutes(1)), 1)
      << daemon.process().Err();
  EXPECT_TRUE(absl::StrContains(daemon.process().Err(), "second signal"));
}

TEST(DrainTest, CallsDuringADrainHearThatItIsOne) {
  Daemon daemon;
  std::vector<std::thread> callers;
  std::atomic<int> served{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      const TestClient client(daemon.address());
      for (int n = 0;; ++n) {
        const RawResult result = client.CallText(
            "mmud.v1.VmService/CreateVm",
            absl::StrCat("vm_id: 'vm-", i, "-", n, "' vm { tdp {} }"));
        if (result.status.ok()) {
          ++served;
          client.CallText("mmud.v1.VmService/DeleteVm",
                          absl::StrCat("name: 'vms/vm-", i, "-", n, "'"));
          continue;
        }
        // The daemon answers DRAINING until it ends. After that gRPC itself
        // reports UNAVAILABLE, or CANCELLED for a call during the end.
        const std::string reason = ReasonOf(result.status);
        const auto code = result.status.error_code();
        if (reason == "DRAINING") {
          EXPECT_EQ(code, grpc::StatusCode::UNAVAILABLE);
          continue;
        }
        EXPECT_EQ(reason, "");
        EXPECT_TRUE(code == grpc::StatusCode::UNAVAILABLE ||
                    code == grpc::StatusCode::CANCELLED)
            << code << " " << result.status.error_message();
        return;
      }
    });
  }
  EXPECT_TRUE(Eventually([&] { return served > 20; }));
  EXPECT_EQ(daemon.Terminate(), 0) << daemon.process().Err();
  for (std::thread& caller : callers) caller.join();
}

TEST(DrainTest, ReadinessFollowsTheDaemonsLife) {
  Daemon daemon;
  EXPECT_EQ(daemon.client().Health(), "SERVING");
  EXPECT_EQ(daemon.client().Health("mmud.v1.VmService"), "SERVING");
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 200);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/readyz").code, 200);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/nothing").code, 404);
  EXPECT_EQ(daemon.Terminate(), 0);
  EXPECT_EQ(HttpGet(daemon.metrics_port(), "/healthz").code, 0);
}

TEST(DrainTest, PeersThatReadNothingDoNotTakeTheTimeOfTheDrain) {
  Daemon daemon({"--drain-timeout=1h"});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(64 * kMiB)});
  guest.WritePages(64 * kMiB / kPage);
  v1::GuestMemoryService::Stub memory(daemon.client().channel());
  v1::ReadPagesRequest request;
  request.set_vm(guest.name());
  request.add_extents()->set_size_bytes(64 * kMiB);
  grpc::ClientContext contexts[2];
  std::unique_ptr<grpc::ClientReader<v1::ReadPagesResponse>> streams[2];
  v1::ReadPagesResponse response;
  for (int i = 0; i < 2; ++i) {
    streams[i] = memory.ReadPages(&contexts[i], request);
    ASSERT_TRUE(streams[i]->Read(&response));
  }
  EXPECT_EQ(daemon.Terminate(absl::Minutes(1)), 0) << daemon.process().Err();
  for (auto& stream : streams) {
    while (stream->Read(&response)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

TEST(DrainTest, AHarvestThatWasNeverOpenedDoesNotTakeTheTimeOfTheDrain) {
  Daemon daemon({"--drain-timeout=1h"});
  v1::DirtyLogService::Stub logs(daemon.client().channel());
  grpc::ClientContext context;
  const auto stream = logs.HarvestDirtyLog(&context);
  ASSERT_TRUE(Eventually(
      [&] { return UseOf(daemon.client(), "max_streams").used_count() == 1; }));
  // Without the drain the daemon would end this stream after 10 s.
  EXPECT_EQ(daemon.Terminate(absl::Seconds(9)), 0) << daemon.process().Err();
  v1::HarvestDirtyLogResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// These clients have requested nothing that is still to come.
TEST(DrainTest, PeersThatWatchHealthOrHoldReflectionOpenAreNotWaitedFor) {
  Daemon daemon({"--drain-timeout=1h"});
  grpc::ClientContext health_context;
  HealthStub health(daemon.client().channel());
  const auto watch =
      health.Watch(&health_context, grpc::health::v1::HealthCheckRequest());
  grpc::health::v1::HealthCheckResponse state;
  ASSERT_TRUE(watch->Read(&state));
  grpc::ClientContext reflection_context;
  ServerReflection::Stub reflection(daemon.client().channel());
  const auto stream = reflection.ServerReflectionInfo(&reflection_context);
  ServerReflectionRequest question;
  question.set_list_services("");
  ServerReflectionResponse answer;
  ASSERT_TRUE(stream->Write(question));
  ASSERT_TRUE(stream->Read(&answer));

  // The drain ends earlier than the 30 s after which the daemon ends an idle
  // reflection stream anyway.
  EXPECT_EQ(daemon.Terminate(absl::Seconds(20)), 0) << daemon.process().Err();
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_FALSE(stream->Finish().ok());
  while (watch->Read(&state)) {
  }
  EXPECT_FALSE(watch->Finish().ok());
}

TEST(DrainTest, SighupReloadsAndTheDaemonServesOn) {
  Daemon daemon;
  const Guest guest(daemon.client(), "guest", {MakeSlot(kMiB)});
  daemon.process().Signal(SIGHUP);
  ASSERT_TRUE(Eventually([&] {
    return absl::StrContains(daemon.MetricsText(),
                             "mmud_reloads_total{result=\"success\"} 1");
  })) << daemon.process().Err();
  EXPECT_TRUE(absl::StrContains(daemon.process().Err(), "signal=SIGHUP"))
      << daemon.process().Err();
  guest.WritePages(1);
  // Were a reload the first of two signals, this would be the second.
  EXPECT_EQ(daemon.Terminate(absl::Seconds(20)), 0) << daemon.process().Err();
}

TEST(DrainTest, AReloadDoesNotEndADrain) {
  Daemon daemon({"--min-drain=2s"});
  daemon.process().Signal(SIGTERM);
  ASSERT_TRUE(Eventually([&] {
    return absl::StrContains(daemon.process().Err(), "draining");
  })) << daemon.process().Err();
  daemon.process().Signal(SIGHUP);
  EXPECT_EQ(daemon.process().Wait(absl::Seconds(60)), 0)
      << daemon.process().Err();
}

// nohup, or a shell that starts a program in the background, makes the program
// ignore a signal.
TEST(DrainTest, ASignalThatWasIgnoredAtItsStartStaysSo) {
  for (const auto& [name, number] :
       {std::pair<std::string, int>{"HUP", SIGHUP}, {"INT", SIGINT}}) {
    const ScratchDirectory directory;
    const std::string ports = directory.File("ports");
    ChildProcess daemon(
        {"/bin/sh", "-c", "trap '' " + name + "; exec \"$@\"", "sh", MmudPath(),
         "--listen=unix:" + directory.File("mmud.sock"),
         "--metrics-address=127.0.0.1:0", "--port-file=" + ports},
        directory.File("mmud"));
    ASSERT_TRUE(Eventually([&] { return !ReadFile(ports).empty(); }))
        << daemon.Err();
    daemon.Signal(number);
    // If the first signal had an effect, SIGTERM would be the second signal.
    daemon.Signal(SIGTERM);
    EXPECT_EQ(daemon.Wait(absl::Minutes(1)), 0) << name << daemon.Err();
    EXPECT_TRUE(absl::StrContains(daemon.Err(), "signal=SIGTERM"))
        << daemon.Err();
  }
}

TEST(DrainTest, IdleDaemonEndsAtOnceAndRemovesItsSocket) {
  Daemon daemon;
  const std::string socket = daemon.directory().File("mmud.sock");
  struct stat info;
  ASSERT_EQ(stat(socket.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, mode_t{0660});
  EXPECT_EQ(daemon.Terminate(absl::Seconds(9)), 0);
  EXPECT_NE(stat(socket.c_str(), &info), 0);
}

TEST(DrainTest, KilledDaemonLeavesItsSocketToTheNextOne) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  daemon.process().Signal(SIGKILL);
  EXPECT_EQ(daemon.process().Wait(absl::Seconds(10)), -SIGKILL);
  const auto next = Daemon::OnSocketOf(daemon);
  EXPECT_EQ(next->client().Health(), "SERVING");
  // The clients of the old daemon connect to the new one.
  EXPECT_TRUE(
      Eventually([&] { return daemon.client().Health() == "SERVING"; }));
  EXPECT_EQ(next->Terminate(), 0);
}

TEST(DrainTest, SecondDaemonOnTheSameSocketSaysSo) {
  Daemon daemon;
  const ProgramResult second =
      RunProgram({MmudPath(), "--listen=" + daemon.address()},
                 daemon.directory().File("second"));
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_EQ(second.err,
            absl::StrCat("mmud: another process serves ", daemon.address(),
                         " already; stop it or choose another "
                         "--listen\n"));
  EXPECT_EQ(daemon.client().Health(), "SERVING");
}

TEST(DrainTest, SecondDaemonOnTheSamePortSaysSo) {
  Daemon daemon({"--listen-tcp=127.0.0.1:0"});
  ASSERT_NE(daemon.grpc_port(), 0);
  EXPECT_EQ(TestClient(absl::StrCat("127.0.0.1:", daemon.grpc_port())).Health(),
            "SERVING");
  for (const auto& [flag, port] :
       {std::pair<std::string, int>{"listen_tcp", daemon.grpc_port()},
        {"metrics_address", daemon.metrics_port()}}) {
    const std::string address = absl::StrCat("127.0.0.1:", port);
    const ProgramResult second = RunProgram(
        {MmudPath(), "--listen=unix:" + daemon.directory().File("second.sock"),
         absl::StrCat("--", flag, "=", address)},
        daemon.directory().File("second"));
    EXPECT_EQ(second.exit_code, 1);
    EXPECT_TRUE(absl::StrContains(
        second.err,
        absl::StrCat("mmud: cannot listen on --", flag, "=", address,
                     ": Address already in use; another process uses this "
                     "port\n")))
        << second.err;
  }
  EXPECT_EQ(daemon.client().Health(), "SERVING");
}

}  // namespace
}  // namespace mmud::integration
