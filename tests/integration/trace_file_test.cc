// Runs recorded programs, whole and damaged, through the daemon.

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

lab::v1::Workload Replay(const std::string& trace) {
  lab::v1::Workload workload;
  workload.mutable_trace()->set_trace_name(trace);
  return workload;
}

// The status of a workload that replays `trace`.
grpc::Status Refused(const TestClient& client, const Guest& guest,
                     const std::string& trace) {
  lab::v1::StartWorkloadRequest request;
  request.set_vm(guest.name());
  *request.mutable_workload() = Replay(trace);
  return client.Call(&lab::v1::WorkloadService::Stub::StartWorkload, request)
      .status;
}

TEST(TraceFileTest, RecordedProgramRunsToItsEnd) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(256 * kMiB)}, 2);
  const lab::v1::Workload end = guest.RunToEnd(Replay("sort.trace"));
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_COMPLETED)
      << end.error().message();
  EXPECT_GT(end.statistics().write_count(), 1000);
  EXPECT_GT(end.statistics().access_count(), end.statistics().write_count());
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(),
            end.statistics().faults().fixed_count());
  EXPECT_EQ(guest.Audit(), "");
}

TEST(TraceFileTest, DamagedFilesAreRefusedAndChangeNothing) {
  ScratchDirectory traces;
  const std::string good = ReadFile(TracesDirectory() + "/gzip.trace");
  ASSERT_GT(good.size(), 4096u);
  std::vector<std::string> names;
  const auto add = [&](const std::string& name, const std::string& bytes) {
    WriteFile(traces.File(name), bytes);
    names.push_back(name);
  };
  add("empty", "");
  add("text", "this is no trace\n");
  add("header-only", good.substr(0, 16));
  add("half", good.substr(0, good.size() / 2));
  add("one-byte-short", good.substr(0, good.size() - 1));
  add("one-byte-long", good + "x");
  for (const size_t at :
       {size_t{0}, size_t{9}, good.size() / 3, good.size() - 5}) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
    add(absl::StrCat("flipped-at-", at), flipped);
  }
  Daemon daemon({"--trace-dir=" + traces.path()});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(64 * kMiB)});
  for (const std::string& name : names) {
    const grpc::Status refused = Refused(daemon.client(), guest, name);
    EXPECT_EQ(ReasonOf(refused), "TRACE_CORRUPT") << name;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::DATA_LOSS) << name;
    EXPECT_TRUE(absl::StrContains(refused.error_message(), name))
        << refused.error_message();
  }
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_IDLE);
  EXPECT_EQ(guest.Get().mapped_pages().pages_4k_count(), 0);
  guest.WritePages(16);
}

TEST(TraceFileTest, NamesDoNotLeaveTheTraceDirectory) {
  ScratchDirectory outer;
  WriteFile(outer.File("secret"), "x");
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  for (const std::string& name :
       {std::string("../WORKSPACE"), outer.File("secret"), std::string(""),
        std::string("./sort.trace"), std::string("a//b"),
        std::string("sort.trace\0x", 12)}) {
    const grpc::Status refused = Refused(daemon.client(), guest, name);
    EXPECT_EQ(ReasonOf(refused), "TRACE_NOT_FOUND") << name;
  }
}

TEST(TraceFileTest, NamesThatLeadToNoFileAreNoDamage) {
  ScratchDirectory traces;
  WriteFile(traces.File("file"), "x");
  std::filesystem::create_directory(traces.File("directory"));
  std::filesystem::create_symlink(traces.File("ring"), traces.File("ring"));
  Daemon daemon({"--trace-dir=" + traces.path()});
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  for (const std::string& name :
       {std::string("absent"), std::string("directory"), std::string("ring"),
        std::string("file/below"), std::string(256, 'a'),
        std::string(5000, 'a')}) {
    const grpc::Status refused = Refused(daemon.client(), guest, name);
    EXPECT_EQ(ReasonOf(refused), "TRACE_NOT_FOUND") << name;
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::NOT_FOUND) << name;
  }
}

TEST(TraceFileTest, TraceThatDoesNotFitEndsWithItsReason) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(16 * kPage)});
  const lab::v1::Workload end = guest.RunToEnd(Replay("sort.trace"));
  EXPECT_EQ(end.state(), lab::v1::WORKLOAD_STATE_FAILED);
  EXPECT_EQ(FactsOf(end.error()).reason, "TRACE_TOO_LARGE");
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_IDLE);
  EXPECT_EQ(guest.Audit(), "");
}

}  // namespace
}  // namespace mmud::integration
