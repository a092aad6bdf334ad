// The daemon's log: changes by callers, and actions of the daemon itself.

#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "mmud/v1/dirty_log_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

// The lines that contain all of these strings.
std::vector<std::string> Lines(Daemon& daemon,
                               const std::vector<std::string>& parts) {
  std::vector<std::string> found;
  for (absl::string_view line : absl::StrSplit(daemon.process().Err(), '\n')) {
    bool has = !line.empty();
    for (const std::string& part : parts) {
      has = has && absl::StrContains(line, part);
    }
    if (has) found.emplace_back(line);
  }
  return found;
}

grpc::Status Create(const TestClient& client, const std::string& id,
                    const std::string& request_id = "", int vcpus = 1) {
  v1::CreateVmRequest request;
  request.set_vm_id(id);
  request.set_request_id(request_id);
  request.mutable_vm()->mutable_tdp();
  request.mutable_vm()->set_vcpu_count(vcpus);
  *request.mutable_vm()->add_memslots() = MakeSlot(kMiB);
  return client.Call(&v1::VmService::Stub::CreateVm, request).status;
}

TEST(LogTest, EveryChangeIsOneLineWithItsCaller) {
  Daemon daemon;
  const std::string id = "3b241101-e2bb-4255-8caf-4136c566a962";
  ASSERT_TRUE(Create(daemon.client(), "alpha", id).ok());
  const std::vector<std::string> lines =
      Lines(daemon, {"method=mmud.v1.VmService/CreateVm"});
  ASSERT_EQ(lines.size(), 1u);
  for (const std::string& part :
       {std::string(" info call "), std::string(" vm=vms/alpha "),
        absl::StrCat(" request_id=", id, " "), std::string(" code=OK "),
        std::string(" duration="), absl::StrCat(" uid=", getuid()),
        absl::StrCat(" pid=", getpid())}) {
    EXPECT_TRUE(absl::StrContains(lines[0], part)) << part << "\n" << lines[0];
  }
  const Guest guest(daemon.client(), "vms/alpha");
  guest.Get();
  EXPECT_TRUE(Lines(daemon, {"GetVm"}).empty()) << "nothing was changed";
  guest.WritePages(4);
  guest.StartDirtyLog();
  const Harvest harvest = guest.Seal();
  guest.Clear(harvest.epoch, harvest.pages);
  for (const char* method :
       {"mmud.lab.v1.WorkloadService/StartWorkload",
        "DirtyLogService/StartDirtyLog", "DirtyLogService/SealDirtyLog",
        "DirtyLogService/ClearDirtyLog"}) {
    EXPECT_EQ(
        Lines(daemon, {" call ", method, "vm=vms/alpha", "code=OK"}).size(), 1u)
        << method;
  }
}

TEST(LogTest, AnOperationIsNamedWhereItBeginsAndWhereItEnds) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  const std::vector<std::string> starts =
      Lines(daemon, {" call ", "StartDirtyLog", "operation=operations/"});
  ASSERT_EQ(starts.size(), 1u);
  const size_t at = starts[0].find("operation=");
  const std::string operation =
      starts[0].substr(at, starts[0].find(' ', at) - at);
  const std::vector<std::string> ends =
      Lines(daemon, {"operation ended", operation, "vm=vms/alpha"});
  ASSERT_EQ(ends.size(), 1u);
  EXPECT_TRUE(absl::StrContains(ends[0], "method=StartDirtyLog")) << ends[0];
  EXPECT_TRUE(absl::StrContains(ends[0], "code=OK")) << ends[0];
}

TEST(LogTest, TheEndOfAWorkloadHasALine) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(4);
  EXPECT_EQ(Lines(daemon, {" info workload ended workload=" +
                               guest.LastWorkload().name(),
                           " vm=vms/alpha state=completed duration="})
                .size(),
            1u);
  lab::v1::Workload too_large;
  too_large.mutable_trace()->set_trace_name("sort.trace");
  too_large.mutable_trace()->mutable_extent()->set_size_bytes(16 * kPage);
  guest.RunToEnd(too_large);
  EXPECT_EQ(Lines(daemon, {" warning workload ended ", "state=failed",
                           "reason=TRACE_TOO_LARGE"})
                .size(),
            1u);
}

TEST(LogTest, WhoIsRefusedIsSeenOnlyByWhoDebugs) {
  for (const char* level : {"debug", "info"}) {
    Daemon daemon({absl::StrCat("--log-level=", level)});
    EXPECT_FALSE(Create(daemon.client(), "alpha", "", -1).ok());
    EXPECT_EQ(daemon.client()
                  .CallText("mmud.v1.VmService/GetVm", "name: 'vms/nobody'")
                  .status.error_code(),
              grpc::StatusCode::NOT_FOUND);
    const bool debug = std::string(level) == "debug";
    EXPECT_EQ(Lines(daemon, {"debug call refused", "VmService/CreateVm",
                             "vm=vms/alpha", "reason=INVALID_VCPU_COUNT",
                             absl::StrCat("pid=", getpid())})
                  .size(),
              debug ? 1u : 0u);
    EXPECT_EQ(Lines(daemon, {"debug call refused", "VmService/GetVm",
                             "reason=VM_NOT_FOUND"})
                  .size(),
              debug ? 1u : 0u);
    EXPECT_TRUE(Lines(daemon, {" info call "}).empty());
  }
}

TEST(LogTest, WhoOnlyLooksChangesNothing) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.WritePages(4);
  guest.StartDirtyLog();
  EXPECT_TRUE(guest.Seal().complete);
  EXPECT_TRUE(guest.Peek().complete);
  const std::string id = "request_id: '3b241101-e2bb-4255-8caf-4136c566a962' ";
  for (const auto& [method, request] :
       {std::pair<std::string, std::string>{
            "mmud.v1.DirtyLogService/GetDirtyLog",
            "vm: 'vms/alpha' count_open_pages: true"},
        {"mmud.v1.AgingService/AgeRange",
         "vm: 'vms/alpha' mode: AGING_MODE_TEST"},
        {"mmud.v1.SplitService/SplitHugePages",
         id + "vm: 'vms/alpha' validate_only: true"}}) {
    const grpc::Status status =
        daemon.client().CallText(method, request).status;
    EXPECT_TRUE(status.ok()) << method << " " << status.error_message();
  }
  EXPECT_TRUE(Lines(daemon, {"GetDirtyLog"}).empty());
  EXPECT_TRUE(Lines(daemon, {"ReadDirtyPages"}).empty());
  EXPECT_TRUE(Lines(daemon, {"AgeRange"}).empty());
  EXPECT_TRUE(Lines(daemon, {"SplitHugePages"}).empty());
}

// The log must not contain a token of a successful or refused call, not even at
// debug level.
TEST(LogTest, NoLineContainsAnOwnersToken) {
  Daemon daemon({"--log-level=debug"});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  guest.StartDirtyLog();
  guest.WritePages(4);
  const Harvest harvest = guest.Seal();
  guest.Clear(harvest.epoch, harvest.pages);
  guest.Clear(harvest.epoch + 7, harvest.pages);
  guest.Acknowledge(harvest.epoch);
  constexpr char kStranger[] = "a token of somebody else";
  v1::SealDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner_token(kStranger);
  EXPECT_EQ(
      ReasonOf(daemon.client()
                   .Call(&v1::DirtyLogService::Stub::SealDirtyLog, request)
                   .status),
      "LOG_OWNED");
  EXPECT_FALSE(Lines(daemon, {"reason=LOG_OWNED"}).empty());
  EXPECT_TRUE(Lines(daemon, {kStranger}).empty());
  EXPECT_TRUE(Lines(daemon, {kOwnerToken}).empty());
}

// The VM is deleted while a clear has taken a part of its pages into flight.
TEST(LogTest, ACallThatFailsHalfwayIsSeenByAll) {
  constexpr int64_t kTiB = int64_t{1} << 40;
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha",
                    {MakeSlot(4 * kTiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  v1::StartDirtyLogRequest log;
  log.set_initially_set(true);
  guest.StartDirtyLog(log);
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(kOwnerToken);
  const int64_t epoch =
      daemon.client()
          .Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal)
          .epoch();
  std::thread caller([&] {
    v1::ClearDirtyLogRequest request;
    request.set_vm(guest.name());
    request.set_owner_token(kOwnerToken);
    request.set_epoch(epoch);
    v1::SlotPages* pages = request.mutable_pages();
    pages->set_size_bytes(4 * kTiB);
    pages->mutable_extents()->add_extents()->set_size_bytes(4 * kTiB);
    const TestClient client(daemon.address());
    EXPECT_EQ(ReasonOf(client
                           .Call(&v1::DirtyLogService::Stub::ClearDirtyLog,
                                 request, absl::Minutes(2))
                           .status),
              "VM_DELETED");
  });
  EXPECT_TRUE(Eventually(
      [&] { return guest.GetDirtyLog().slots(0).in_flight_page_count() > 0; }));
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  remove.set_force(true);
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
  caller.join();
  EXPECT_EQ(Lines(daemon, {" info call broken off ", "ClearDirtyLog",
                           "reason=VM_DELETED"})
                .size(),
            1u);
}

TEST(LogTest, OverTcpTheCallerIsAnAddress) {
  Daemon daemon({"--listen-tcp=127.0.0.1:0"});
  const TestClient client(absl::StrCat("127.0.0.1:", daemon.grpc_port()));
  ASSERT_TRUE(Create(client, "alpha").ok());
  EXPECT_EQ(Lines(daemon, {"CreateVm", " address=127.0.0.1:"}).size(), 1u);
}

TEST(LogTest, AFloodIsCutAndItsSizeIsKnown) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  constexpr int kCalls = 2000;
  for (int i = 0; i < kCalls; ++i) guest.PauseVcpus();
  ASSERT_EQ(daemon.Terminate(), 0);
  const size_t written = Lines(daemon, {"PauseVcpus"}).size();
  int dropped = 0;
  for (const std::string& line : Lines(daemon, {"dropped="})) {
    int number = 0;
    ASSERT_TRUE(
        absl::SimpleAtoi(line.substr(line.find("dropped=") + 8), &number));
    dropped += number;
  }
  EXPECT_LT(written, size_t{kCalls});
  EXPECT_EQ(written + static_cast<size_t>(dropped), size_t{kCalls});
  EXPECT_EQ(Lines(daemon, {"CreateVm"}).size(), 1u);
}

TEST(LogTest, ALifeBeginsWithItsConfigurationAndEndsWithItsDrain) {
  Daemon daemon({"--max-vms=7"});
  ASSERT_TRUE(Create(daemon.client(), "alpha").ok());
  ASSERT_EQ(daemon.Terminate(), 0);
  EXPECT_EQ(
      Lines(daemon, {" info configuration ", " max_vms=7", " max_operations=",
                     " drain_timeout=", " log_level=info", " listen=unix:"})
          .size(),
      1u);
  EXPECT_EQ(Lines(daemon, {" info serving "}).size(), 1u);
  EXPECT_EQ(Lines(daemon, {" info draining ", "signal=SIGTERM"}).size(), 1u);
  EXPECT_EQ(Lines(daemon, {" info stopped", " uptime="}).size(), 1u);
}

}  // namespace
}  // namespace mmud::integration
