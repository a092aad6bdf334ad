// Provokes every reason of ErrorReason that a caller can provoke, and checks
// the form of all errors.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/substitute.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "mmud/v1/error_reasons.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/dirty_log_error_cases.h"
#include "tests/integration/error_case.h"
#include "tests/integration/guest.h"
#include "tests/integration/vm_error_cases.h"

namespace mmud::integration {
namespace {

// Reasons that no test can provoke, each with an explanation.
const std::map<std::string, std::string>& NotProvoked() {
  static const auto* const kReasons = new std::map<std::string, std::string>{
      {"ERROR_REASON_UNSPECIFIED", "never sent"},
      {"CALL_CANCELLED", "its caller has left and cannot receive it"},
      {"INTERNAL_ERROR", "a fault of the daemon"},
      {"THREADS_EXHAUSTED", "no limit on threads binds the root user"},
  };
  return *kReasons;
}

// Limits on concurrent work. They become free again without any action of the
// caller.
const std::set<std::string>& Budgets() {
  static const auto* const kBudgets =
      new std::set<std::string>{"max_operations", "max_short_calls",
                                "max_long_calls", "max_long_calls_per_vm",
                                "max_streams",    "max_streams_per_vm",
                                "max_waits",      "max_reflections"};
  return *kBudgets;
}

// Starts a daemon with little address space and a damaged trace. Each case has
// one VM.
class ErrorsTest : public ::testing::Test {
 protected:
  ErrorsTest() {
    WriteFile(traces_.File("bad.trace"), "not a trace");
    WriteFile(traces_.File("sort.trace"),
              ReadFile(TracesDirectory() + "/sort.trace"));
    daemon_ = std::make_unique<Daemon>(
        std::vector<std::string>{"--max-vms=2", "--max-guest-memory-bytes=0",
                                 "--trace-dir=" + traces_.path()});
    // Anonymous memory is not committed, so it is exhausted only with a limit
    // on address space.
    const std::string out = traces_.File("prlimit");
    const ProgramResult limited = RunProgram(
        {"/usr/bin/prlimit", absl::StrCat("--pid=", daemon_->process().pid()),
         absl::StrCat("--as=", int64_t{1} << 41)},
        out);
    EXPECT_EQ(limited.exit_code, 0) << limited.err;
  }

  const TestClient& client() const { return daemon_->client(); }

  // A VM with 2 MiB mappings, each with one word that was accessed, and with
  // memory without contents.
  std::unique_ptr<Guest> NewGuest() const {
    v1::Memslot empty = MakeSlot(kMiB, v1::MEMORY_BACKING_METADATA_ONLY);
    empty.set_slot(2);
    empty.set_gpa_bytes(32 * kGiB);
    auto guest = std::make_unique<Guest>(
        client(), "case",
        std::vector<v1::Memslot>{
            MakeSlot(8 * kMiB, v1::MEMORY_BACKING_ANONYMOUS, v1::PAGE_SIZE_2M),
            empty},
        2);
    guest->ReadWords(8 * kMiB, 2 * kMiB);
    return guest;
  }

  // Cancels all operations and deletes all VMs.
  void CleanUp() const {
    google::longrunning::ListOperationsRequest list;
    list.set_page_size(1000);  // many of these are done by now
    const auto operations = client().Must(
        &google::longrunning::Operations::Stub::ListOperations, list);
    for (const auto& operation : operations.operations()) {
      if (operation.done()) continue;
      client().Cancel(operation.name());
      client().WaitDone(operation.name());
    }
    const auto workloads =
        client().Must(&lab::v1::WorkloadService::Stub::ListWorkloads,
                      lab::v1::ListWorkloadsRequest());
    for (const lab::v1::Workload& workload : workloads.workloads()) {
      if (workload.state() != lab::v1::WORKLOAD_STATE_RUNNING) continue;
      lab::v1::StopWorkloadRequest stop;
      stop.set_name(workload.name());
      client().Must(&lab::v1::WorkloadService::Stub::StopWorkload, stop);
    }
    const auto vms =
        client().Must(&v1::VmService::Stub::ListVms, v1::ListVmsRequest());
    for (const v1::Vm& vm : vms.vms()) {
      v1::DeleteVmRequest request;
      request.set_name(vm.name());
      request.set_force(true);
      client().Must(&v1::VmService::Stub::DeleteVm, request);
    }
  }

  void CheckForm(const grpc::Status& status) const {
    const ErrorFacts facts = FactsOf(status);
    EXPECT_EQ(facts.error_infos, 1);
    EXPECT_EQ(facts.domain, "mmud");
    EXPECT_FALSE(status.error_message().empty());
    const bool bad_request =
        status.error_code() == kInvalid ||
        status.error_code() == grpc::StatusCode::OUT_OF_RANGE;
    if (bad_request) {
      EXPECT_EQ(facts.violated_field, facts.field);
      const std::string leaf =
          facts.field.substr(facts.field.find_last_of('.') + 1);
      EXPECT_TRUE(absl::StrContains(status.error_message(), leaf))
          << leaf << " is not in: " << status.error_message();
    }
    if (status.error_code() == kNotFound && facts.field.empty()) {
      EXPECT_FALSE(facts.resource_name.empty());
    }
    // An error that passes with time says when to try again.
    EXPECT_EQ(facts.has_retry_info,
              status.error_code() == grpc::StatusCode::UNAVAILABLE ||
                  facts.reason == "INSUFFICIENT_HISTORY" ||
                  (facts.reason == "LIMIT_EXCEEDED" &&
                   Budgets().count(facts.limit) > 0));
  }

  ScratchDirectory traces_;
  std::unique_ptr<Daemon> daemon_;
};

TEST_F(ErrorsTest, EveryReasonComesWithItsCodeFieldAndValue) {
  std::set<std::string> seen;
  std::vector<ErrorCase> cases = VmErrorCases();
  cases.insert(cases.end(), DirtyLogErrorCases().begin(),
               DirtyLogErrorCases().end());
  for (const ErrorCase& wrong : cases) {
    const std::unique_ptr<Guest> guest = NewGuest();
    const std::string prepared =
        wrong.prepare == nullptr ? "" : wrong.prepare(client(), *guest);
    const std::string before = guest->Get().etag();
    const std::string text =
        absl::Substitute(wrong.request, guest->name(), prepared);
    SCOPED_TRACE(
        absl::StrCat(wrong.reason, ": ", wrong.method, " {", text, "}"));
    const RawResult result = client().CallText(wrong.method, text);
    SCOPED_TRACE(result.status.error_message());
    const ErrorFacts facts = FactsOf(result.status);
    EXPECT_EQ(facts.reason, wrong.reason);
    EXPECT_EQ(result.status.error_code(), wrong.code);
    EXPECT_EQ(facts.field, wrong.field);
    EXPECT_TRUE(
        absl::StrContains(result.status.error_message(), wrong.mentions))
        << wrong.mentions;
    CheckForm(result.status);
    EXPECT_EQ(guest->Get().etag(), before) << "something was changed";
    seen.insert(facts.reason);
    CleanUp();
  }

  // Reasons with which a workload or an operation ends, and reasons that need
  // another daemon.
  const std::unique_ptr<Guest> guest = NewGuest();
  lab::v1::Workload workload;
  workload.mutable_trace()->set_trace_name("sort.trace");
  workload.mutable_trace()->mutable_extent()->set_size_bytes(16 * kPage);
  const lab::v1::Workload too_large = guest->RunToEnd(workload);
  EXPECT_EQ(too_large.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(FactsOf(too_large.error()).domain, "mmud");
  seen.insert(FactsOf(too_large.error()).reason);

  // Each access is in another 2 MiB, so it needs another page table.
  Daemon few_tables({"--max-page-tables=100"});
  const Guest vast(few_tables.client(), "vast",
                   {MakeSlot(64 * kGiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  workload.Clear();
  workload.set_access_count(1000);
  workload.mutable_pattern()->mutable_sequential()->set_stride_bytes(2 * kMiB);
  const lab::v1::Workload no_tables = vast.RunToEnd(workload);
  EXPECT_EQ(no_tables.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  seen.insert(FactsOf(no_tables.error()).reason);
  EXPECT_EQ(vast.Audit(), "");

  // There are more vCPUs than shadow pages, and each vCPU needs a root of its
  // own.
  Daemon roomy;
  roomy.client().CallText(
      "mmud.v1.VmService/CreateVm",
      "vm_id: 'many' vm { vcpu_count: 100 shadow {} shadow_page_limit: 64 "
      "memslots { size_bytes: 268435456 } }");
  const Guest many(roomy.client(), "vms/many");
  const lab::v1::Workload no_roots = many.AwaitEnd(many.StartRandomWrites(1));
  EXPECT_EQ(no_roots.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  seen.insert(FactsOf(no_roots.error()).reason);

  // This guest's kernel was stopped while it waited for room in its dirty ring.
  roomy.client().CallText("mmud.v1.VmService/CreateVm",
                          "vm_id: 'lost' vm { shadow {} dirty_ring_entries: "
                          "256 memslots { size_bytes: 67108864 } }");
  const Guest lost(roomy.client(), "vms/lost");
  lost.StartDirtyLog();
  lost.StartRandomWrites(1);
  EXPECT_TRUE(Eventually([&] {
    return !absl::StrContains(roomy.MetricsText(),
                              "\nmmud_dirty_ring_full_exits_total 0\n");
  }));
  lost.StopWorkload();
  const lab::v1::Workload again = lost.AwaitEnd(lost.StartRandomWrites(1));
  EXPECT_EQ(again.error().code(), grpc::StatusCode::FAILED_PRECONDITION);
  seen.insert(FactsOf(again.error()).reason);

  const std::string running = RunSplit(client(), *guest);
  client().Cancel(running);
  const auto cancelled = client().WaitDone(running);
  EXPECT_EQ(cancelled.error().code(), grpc::StatusCode::CANCELLED);
  seen.insert(FactsOf(cancelled.error()).reason);

  Daemon other({"--enable-debug-service=false"});
  const Guest slow(other.client(), "slow",
                   {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY,
                             v1::PAGE_SIZE_2M)});
  slow.ReadWords(64 * kMiB, 2 * kMiB);
  const RawResult debug = other.client().CallText(
      "mmud.v1.DebugService/RunAudit", "vm: 'vms/slow'");
  EXPECT_EQ(debug.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  CheckForm(debug.status);
  seen.insert(ReasonOf(debug.status));

  const RawResult opt_out = other.client().CallText(
      "mmud.v1.VmService/CreateVm",
      "vm_id: 'free' vm { tdp { nx_huge_pages_opt_out: true } }");
  EXPECT_EQ(opt_out.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  CheckForm(opt_out.status);
  seen.insert(ReasonOf(opt_out.status));

  // A stream that waits for its client while its VM is deleted, or while the
  // daemon begins to drain.
  const auto harvest = [](const TestClient& of, const std::string& vm,
                          const std::function<void()>& end) {
    grpc::ClientContext context;
    SetTimeout(kCallTimeout, &context);
    v1::DirtyLogService::Stub stub(of.channel());
    const auto stream = stub.HarvestDirtyLog(&context);
    v1::HarvestDirtyLogRequest request;
    request.mutable_open()->set_vm(vm);
    request.mutable_open()->set_owner_token(kOwnerToken);
    EXPECT_TRUE(stream->Write(request));
    v1::HarvestDirtyLogResponse response;
    EXPECT_TRUE(stream->Read(&response));
    end();
    EXPECT_FALSE(stream->Read(&response));
    return stream->Finish();
  };
  const Guest going(roomy.client(), "going", {MakeSlot(kMiB)});
  going.StartDirtyLog();
  const grpc::Status deleted = harvest(roomy.client(), going.name(), [&] {
    v1::DeleteVmRequest remove;
    remove.set_name(going.name());
    roomy.client().Must(&v1::VmService::Stub::DeleteVm, remove);
  });
  EXPECT_EQ(deleted.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  CheckForm(deleted);
  seen.insert(ReasonOf(deleted));

  slow.StartDirtyLog();
  const grpc::Status drained = harvest(
      other.client(), slow.name(), [&] { EXPECT_EQ(other.Terminate(), 0); });
  EXPECT_EQ(drained.error_code(), grpc::StatusCode::UNAVAILABLE);
  CheckForm(drained);
  seen.insert(ReasonOf(drained));

  for (const auto& [reason, why] : NotProvoked()) {
    EXPECT_EQ(seen.count(reason), 0u) << reason << " is said to be: " << why;
    seen.insert(reason);
  }
  const auto* reasons = v1::ErrorReason_descriptor();
  std::set<std::string> all;
  for (int i = 0; i < reasons->value_count(); ++i) {
    all.insert(reasons->value(i)->name());
  }
  EXPECT_EQ(seen, all);
}

}  // namespace
}  // namespace mmud::integration
