// Workloads as resources: each VM has one, the workload that runs or ran last.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/metrics_text.h"

namespace mmud::integration {
namespace {

using Stub = lab::v1::WorkloadService::Stub;

// A workload that writes to every page, over and over.
lab::v1::Workload Writes() {
  lab::v1::Workload workload;
  workload.mutable_pattern()->mutable_sequential();
  workload.mutable_pattern()->set_write_fraction(1);
  return workload;
}

Result<lab::v1::GetWorkloadResponse> Get(const TestClient& client,
                                         const std::string& name) {
  lab::v1::GetWorkloadRequest request;
  request.set_name(name);
  return client.Call(&Stub::GetWorkload, request);
}

std::string ReasonNotFound(const TestClient& client, const std::string& name) {
  const grpc::Status status = Get(client, name).status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(FactsOf(status).resource_name, name);
  return ReasonOf(status);
}

TEST(WorkloadTest, ItShowsWhatItWasAskedForAndWhatItDid) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)}, 2);
  lab::v1::StartWorkloadRequest request;
  request.set_vm(guest.name());
  *request.mutable_workload() = Writes();
  request.mutable_workload()->set_seed(7);
  request.mutable_workload()->set_max_accesses_per_second(1'000'000);
  request.mutable_workload()->mutable_max_duration()->set_seconds(3600);
  // The daemon ignores output-only fields of the request.
  request.mutable_workload()->set_name("vms/beta/workloads/1");
  request.mutable_workload()->set_state(lab::v1::WORKLOAD_STATE_FAILED);
  request.mutable_workload()->mutable_error()->set_code(7);
  request.mutable_workload()->mutable_end_time()->set_seconds(1);
  request.mutable_workload()->set_total_access_count(9);
  const lab::v1::Workload started =
      daemon.client().Must(&Stub::StartWorkload, request).workload();
  EXPECT_TRUE(absl::StartsWith(started.name(), "vms/alpha/workloads/"));
  EXPECT_EQ(started.vm_uid(), guest.Get().uid());
  EXPECT_EQ(started.vcpu_count(), 2);
  EXPECT_EQ(started.pattern().write_fraction(), 1);
  EXPECT_EQ(started.seed(), 7);
  EXPECT_EQ(started.max_accesses_per_second(), 1'000'000);
  EXPECT_EQ(started.max_duration().seconds(), 3600);
  EXPECT_EQ(started.state(), lab::v1::WORKLOAD_STATE_RUNNING);
  EXPECT_FALSE(started.has_error());
  EXPECT_TRUE(started.has_start_time());
  EXPECT_FALSE(started.has_end_time());
  EXPECT_EQ(started.total_access_count(), 0) << "it has no end of its own";

  lab::v1::Workload now;
  EXPECT_TRUE(Eventually([&] {
    now = Get(daemon.client(), started.name()).response.workload();
    return now.statistics().write_count() > 1000;
  }));
  EXPECT_EQ(now.state(), lab::v1::WORKLOAD_STATE_RUNNING);
  EXPECT_GE(now.statistics().access_count(), now.statistics().write_count());
  EXPECT_GT(now.statistics().faults().fixed_count(), 0);
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_RUNNING);

  const lab::v1::Workload stopped = guest.StopWorkload();
  EXPECT_EQ(stopped.name(), started.name());
  EXPECT_EQ(stopped.state(), lab::v1::WORKLOAD_STATE_STOPPED);
  EXPECT_TRUE(stopped.has_end_time());
  EXPECT_EQ(guest.Get().vcpu_state(), v1::VCPU_STATE_IDLE);
  // The workload's state does not change after its end.
  EXPECT_EQ(Get(daemon.client(), started.name())
                .response.workload()
                .SerializeAsString(),
            stopped.SerializeAsString());
}

TEST(WorkloadTest, OneThatFailedKeepsItsErrorAndItsFigures) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(16 * kPage)});
  lab::v1::Workload replay;
  replay.mutable_trace()->set_trace_name("sort.trace");
  const lab::v1::Workload failed = guest.RunToEnd(replay);
  EXPECT_EQ(failed.state(), lab::v1::WORKLOAD_STATE_FAILED);
  EXPECT_EQ(failed.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(failed.error().message().empty());
  const ErrorFacts facts = FactsOf(failed.error());
  EXPECT_EQ(facts.reason, "TRACE_TOO_LARGE");
  EXPECT_EQ(facts.domain, "mmud");
  EXPECT_TRUE(failed.has_end_time());
  EXPECT_GT(failed.statistics().access_count(), 0);
  // The workload has ended, so it cannot be stopped and its VM can be deleted.
  lab::v1::StopWorkloadRequest stop;
  stop.set_name(failed.name());
  EXPECT_EQ(ReasonOf(daemon.client().Call(&Stub::StopWorkload, stop).status),
            "WORKLOAD_NOT_RUNNING");
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  daemon.client().Must(&v1::VmService::Stub::DeleteVm, remove);
}

TEST(WorkloadTest, OneThatEndedIsThereUntilTheNextOneOrTheEndOfItsVm) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  const Guest guest(client, "alpha", {MakeSlot(kMiB)});
  EXPECT_EQ(guest.LastWorkload().name(), "");
  guest.WritePages(16);
  const lab::v1::Workload first = guest.LastWorkload();
  EXPECT_EQ(first.state(), lab::v1::WORKLOAD_STATE_COMPLETED);
  EXPECT_EQ(first.total_access_count(), 16);
  EXPECT_EQ(first.statistics().access_count(), 16);

  // A refused start keeps the former workload.
  lab::v1::StartWorkloadRequest refused;
  refused.set_vm(guest.name());
  refused.mutable_workload()->mutable_trace()->set_trace_name("no.trace");
  EXPECT_EQ(ReasonOf(client.Call(&Stub::StartWorkload, refused).status),
            "TRACE_NOT_FOUND");
  EXPECT_TRUE(Get(client, first.name()).status.ok());

  const std::string second = guest.Start(Writes());
  EXPECT_EQ(ReasonNotFound(client, first.name()), "WORKLOAD_NOT_FOUND");
  lab::v1::StopWorkloadRequest stop;
  stop.set_name(first.name());
  EXPECT_EQ(ReasonOf(client.Call(&Stub::StopWorkload, stop).status),
            "WORKLOAD_NOT_FOUND");
  EXPECT_EQ(guest.LastWorkload().name(), second);
  EXPECT_EQ(guest.LastWorkload().state(), lab::v1::WORKLOAD_STATE_RUNNING)
      << "the second one was stopped under the name of the first";
  guest.StopWorkload();

  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  client.Must(&v1::VmService::Stub::DeleteVm, remove);
  EXPECT_EQ(ReasonNotFound(client, second), "WORKLOAD_NOT_FOUND");
  // Another VM of the same name does not have the workload.
  const Guest again(client, "alpha", {MakeSlot(kMiB)});
  EXPECT_EQ(ReasonNotFound(client, second), "WORKLOAD_NOT_FOUND");
  EXPECT_EQ(again.LastWorkload().name(), "");
}

TEST(WorkloadTest, ARepeatedRequestStartsOrStopsNothingTwice) {
  Daemon daemon;
  const Guest guest(daemon.client(), "alpha", {MakeSlot(kMiB)});
  lab::v1::StartWorkloadRequest start;
  start.set_vm(guest.name());
  *start.mutable_workload() = Writes();
  start.set_request_id("3b241101-e2bb-4255-8caf-4136c566a962");
  const auto first = daemon.client().Must(&Stub::StartWorkload, start);
  const auto second = daemon.client().Must(&Stub::StartWorkload, start);
  EXPECT_EQ(second.SerializeAsString(), first.SerializeAsString());
  lab::v1::StopWorkloadRequest stop;
  stop.set_name(first.workload().name());
  stop.set_request_id("4b241101-e2bb-4255-8caf-4136c566a962");
  const auto stopped = daemon.client().Must(&Stub::StopWorkload, stop);
  guest.Start(Writes());
  EXPECT_EQ(daemon.client().Must(&Stub::StopWorkload, stop).SerializeAsString(),
            stopped.SerializeAsString());
  EXPECT_EQ(guest.LastWorkload().state(), lab::v1::WORKLOAD_STATE_RUNNING);
}

TEST(WorkloadTest, ListsHaveOneOfEachVmInPages) {
  Daemon daemon;
  const TestClient& client = daemon.client();
  std::vector<std::string> expected;
  for (int i = 0; i < 7; ++i) {
    const Guest guest(client, absl::StrCat("vm-", i), {MakeSlot(kMiB)});
    // Every second VM has no workload.
    if (i % 2 == 1) continue;
    guest.WritePages(1);
    expected.push_back(guest.LastWorkload().name());
  }
  for (const int page_size : {0, 1, 2, 3, 4, 5}) {
    std::vector<std::string> listed;
    lab::v1::ListWorkloadsRequest request;
    request.set_page_size(page_size);
    int pages = 0;
    do {
      const auto page = client.Must(&Stub::ListWorkloads, request);
      EXPECT_LE(page.workloads_size(), page_size == 0 ? 100 : page_size);
      EXPECT_FALSE(page.workloads().empty());
      for (const lab::v1::Workload& workload : page.workloads()) {
        listed.push_back(workload.name());
      }
      request.set_page_token(page.next_page_token());
      ++pages;
    } while (!request.page_token().empty() && pages < 10);
    EXPECT_EQ(listed, expected) << page_size;
    EXPECT_EQ(pages, page_size == 0 ? 1 : (4 + page_size - 1) / page_size);
  }
  lab::v1::ListWorkloadsRequest of_one;
  of_one.set_vm("vms/vm-2");
  const auto list = client.Must(&Stub::ListWorkloads, of_one);
  ASSERT_EQ(list.workloads_size(), 1);
  EXPECT_EQ(list.workloads(0).name(), expected[1]);
  EXPECT_EQ(list.next_page_token(), "");
  of_one.set_vm("vms/vm-1");
  EXPECT_TRUE(client.Must(&Stub::ListWorkloads, of_one).workloads().empty());
}

TEST(WorkloadTest, SixtyFourThatRunLeaveAllPlacesToOperationsAndEndWithADrain) {
  Daemon daemon({"--drain-timeout=1h"});
  const TestClient& client = daemon.client();
  const v1::Memslot slot =
      MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY, v1::PAGE_SIZE_2M);
  std::vector<std::unique_ptr<Guest>> guests;
  std::vector<std::string> names;
  lab::v1::Workload slow = Writes();
  slow.set_max_accesses_per_second(10);
  for (int i = 0; i < 64; ++i) {
    guests.push_back(std::make_unique<Guest>(client, absl::StrCat("vm-", i),
                                             std::vector<v1::Memslot>{slot}));
    names.push_back(guests.back()->Start(slow));
  }
  const auto running = [&] {
    const absl::StatusOr<Metrics> metrics = ParseMetrics(daemon.MetricsText());
    EXPECT_TRUE(metrics.ok()) << metrics.status();
    return metrics.ok() ? metrics->Value("mmud_workloads_running") : -1;
  };
  EXPECT_EQ(running(), 64);
  EXPECT_EQ(UseOf(client, "max_operations").used_count(), 0);
  EXPECT_TRUE(client
                  .Must(&google::longrunning::Operations::Stub::ListOperations,
                        google::longrunning::ListOperationsRequest())
                  .operations()
                  .empty());
  // Start the maximum number of operations.
  const int64_t places = UseOf(client, "max_operations").limit_count();
  ASSERT_EQ(places, 64);
  v1::SplitHugePagesRequest split;
  split.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  for (const auto& guest : guests) guest->StartSplit(split);
  EXPECT_EQ(UseOf(client, "max_operations").refused_count(), 0);

  EXPECT_EQ(daemon.Terminate(absl::Minutes(1)), 0) << daemon.process().Err();
  const std::string log = daemon.process().Err();
  for (const std::string& name : names) {
    EXPECT_TRUE(
        absl::StrContains(log, absl::StrCat("workload ended workload=", name)))
        << name;
  }
}

}  // namespace
}  // namespace mmud::integration
