// The command line as a person meets it: help, usage errors, exit codes.

#include "client/mmuctl/mmuctl.h"

#include <signal.h>

#include <cstdlib>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/test_socket.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.grpc.pb.h"
#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "proto/mmud/v1/default_address.h"
#include "proto/mmud/v1/release.h"

namespace mmud::client {
namespace {

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

Result RunLine(std::vector<std::string> arguments) {
  std::istringstream in;
  std::ostringstream out, err;
  const int exit_code =
      RunMmuctl(std::move(arguments), in, out, err, ProgressStyle::kQuiet);
  return {exit_code, out.str(), err.str()};
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Operations of a FakeDaemon.
constexpr char kRecovery[] = "operations/1f9619ff-8b86-4d01-b42d-00cf4fc964ff";
constexpr char kSplit[] = "operations/2f9619ff-8b86-4d01-b42d-00cf4fc964ff";
constexpr char kOlderSplit[] =
    "operations/2a9619ff-8b86-4d01-b42d-00cf4fc964ff";

// One that runs.
lab::v1::Workload WorkloadOf(const std::string& vm) {
  lab::v1::Workload workload;
  workload.set_name(vm + "/workloads/3f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  workload.set_state(lab::v1::WORKLOAD_STATE_RUNNING);
  workload.mutable_start_time()->set_seconds(1'795'000'000);
  workload.mutable_running_time()->set_seconds(90);
  workload.mutable_statistics()->set_access_count(250);
  workload.set_total_access_count(1000);
  return workload;
}

grpc::Status EtagMismatch() {
  google::rpc::Status status;
  status.set_code(grpc::StatusCode::ABORTED);
  google::rpc::ErrorInfo info;
  info.set_reason("ETAG_MISMATCH");
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  return grpc::Status(grpc::StatusCode::ABORTED, "it changed",
                      status.SerializeAsString());
}

class FakeDaemon final : public v1::VmService::Service,
                         public lab::v1::WorkloadService::Service,
                         public v1::SplitService::Service,
                         public google::longrunning::Operations::Service {
 public:
  FakeDaemon() {
    address_ = NewTestAddress();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::VmService::Service*>(this));
    builder.RegisterService(
        static_cast<lab::v1::WorkloadService::Service*>(this));
    builder.RegisterService(static_cast<v1::SplitService::Service*>(this));
    builder.RegisterService(
        static_cast<google::longrunning::Operations::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() override { server_->Shutdown(); }

  grpc::Status CreateVm(grpc::ServerContext*,
                        const v1::CreateVmRequest* request,
                        v1::CreateVmResponse* response) override {
    create = *request;
    *response->mutable_vm() = request->vm();
    response->mutable_vm()->set_name("vms/" + request->vm_id());
    return grpc::Status::OK;
  }

  // There is vms/labelled and no other.
  grpc::Status GetVm(grpc::ServerContext*, const v1::GetVmRequest* request,
                     v1::GetVmResponse* response) override {
    if (request->name() == labelled.name()) {
      *response->mutable_vm() = labelled;
      return grpc::Status::OK;
    }
    google::rpc::Status status;
    status.set_code(grpc::StatusCode::NOT_FOUND);
    google::rpc::ErrorInfo info;
    info.set_reason("VM_NOT_FOUND");
    info.set_domain("mmud");
    status.add_details()->PackFrom(info);
    return grpc::Status(grpc::StatusCode::NOT_FOUND,
                        request->name() + " does not exist",
                        status.SerializeAsString());
  }

  grpc::Status UpdateVm(grpc::ServerContext*,
                        const v1::UpdateVmRequest* request,
                        v1::UpdateVmResponse* response) override {
    if (other_updates > 0) {
      // Another client is quicker.
      --other_updates;
      labelled.set_etag(labelled.etag() + "+");
      (*labelled.mutable_labels())["other"] += "x";
    }
    if (!request->etag().empty() && request->etag() != labelled.etag()) {
      return EtagMismatch();
    }
    update = *request;
    *response->mutable_vm() = request->vm();
    return grpc::Status::OK;
  }

  grpc::Status ListMemslots(grpc::ServerContext*,
                            const v1::ListMemslotsRequest* request,
                            v1::ListMemslotsResponse* response) override {
    // Two pages of one slot each.
    response->add_memslots()->set_slot(request->page_token().empty() ? 3 : 7);
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status ListVms(grpc::ServerContext*, const v1::ListVmsRequest* request,
                       v1::ListVmsResponse* response) override {
    // Two pages of one VM each.
    response->add_vms()->set_name(request->page_token().empty() ? "vms/a"
                                                                : "vms/b");
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status StartWorkload(
      grpc::ServerContext*, const lab::v1::StartWorkloadRequest* request,
      lab::v1::StartWorkloadResponse* response) override {
    start = *request;
    *response->mutable_workload() = WorkloadOf("vms/alpha");
    return grpc::Status::OK;
  }

  // It has ended by now.
  grpc::Status GetWorkload(grpc::ServerContext*,
                           const lab::v1::GetWorkloadRequest* request,
                           lab::v1::GetWorkloadResponse* response) override {
    lab::v1::Workload& workload = *response->mutable_workload();
    workload = WorkloadOf("vms/alpha");
    EXPECT_EQ(request->name(), workload.name());
    workload.set_state(failure.code() == 0 ? lab::v1::WORKLOAD_STATE_COMPLETED
                                           : lab::v1::WORKLOAD_STATE_FAILED);
    if (failure.code() != 0) *workload.mutable_error() = failure;
    workload.mutable_end_time()->set_seconds(1'795'000'090);
    return grpc::Status::OK;
  }

  // Two pages of one workload each; of one VM alone, vms/idle has none.
  grpc::Status ListWorkloads(
      grpc::ServerContext*, const lab::v1::ListWorkloadsRequest* request,
      lab::v1::ListWorkloadsResponse* response) override {
    if (!request->vm().empty()) {
      if (request->vm() == "vms/idle") return grpc::Status::OK;
      *response->add_workloads() = WorkloadOf(request->vm());
      return grpc::Status::OK;
    }
    *response->add_workloads() =
        WorkloadOf(request->page_token().empty() ? "vms/a" : "vms/b");
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status StopWorkload(grpc::ServerContext*,
                            const lab::v1::StopWorkloadRequest* request,
                            lab::v1::StopWorkloadResponse* response) override {
    stopped = request->name();
    *response->mutable_workload() = WorkloadOf("vms/alpha");
    response->mutable_workload()->set_state(lab::v1::WORKLOAD_STATE_STOPPED);
    return grpc::Status::OK;
  }

  // kRecovery is one, the others are splits.
  grpc::Status GetOperation(
      grpc::ServerContext*,
      const google::longrunning::GetOperationRequest* request,
      google::longrunning::Operation* operation) override {
    operation->set_name(request->name());
    if (request->name() == kRecovery) {
      v1::RecoverMetadata metadata;
      metadata.set_vm("vms/alpha");
      operation->mutable_metadata()->PackFrom(metadata);
    } else {
      v1::SplitMetadata metadata;
      operation->mutable_metadata()->PackFrom(metadata);
    }
    return grpc::Status::OK;
  }

  // Done at once.
  grpc::Status WaitOperation(
      grpc::ServerContext*,
      const google::longrunning::WaitOperationRequest* request,
      google::longrunning::Operation* operation) override {
    sigaction(SIGINT, nullptr, &interrupt_while_watched);
    operation->set_name(request->name());
    operation->set_done(true);
    v1::SplitMetadata metadata;
    operation->mutable_metadata()->PackFrom(metadata);
    operation->mutable_response()->PackFrom(metadata);
    return grpc::Status::OK;
  }

  grpc::Status CancelOperation(
      grpc::ServerContext*,
      const google::longrunning::CancelOperationRequest* request,
      google::protobuf::Empty*) override {
    ++cancels;
    cancelled = request->name();
    return grpc::Status::OK;
  }

  grpc::Status ListOperations(
      grpc::ServerContext*,
      const google::longrunning::ListOperationsRequest* request,
      google::longrunning::ListOperationsResponse* response) override {
    filter = request->filter();
    v1::RecoverMetadata recovery;
    recovery.set_vm("vms/beta");
    response->add_operations()->set_name(kRecovery);
    response->mutable_operations(0)->mutable_metadata()->PackFrom(recovery);
    v1::SplitMetadata metadata;
    metadata.set_vm("vms/alpha");
    metadata.mutable_start_time()->set_seconds(1'795'000'000);
    metadata.mutable_running_time()->set_seconds(90);
    for (const char* name : {kSplit, kOlderSplit}) {
      google::longrunning::Operation& split = *response->add_operations();
      split.set_name(name);
      split.mutable_metadata()->PackFrom(metadata);
      split.set_done(name == kOlderSplit);
    }
    return grpc::Status::OK;
  }

  grpc::Status UpdateSplit(grpc::ServerContext*,
                           const v1::UpdateSplitRequest* request,
                           google::longrunning::Operation* operation) override {
    if (!request->etag().empty()) return EtagMismatch();
    throttle = request->throttle();
    operation->set_name(request->operation());
    return grpc::Status::OK;
  }

  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", address_});
    return RunLine(std::move(arguments));
  }
  const std::string& address() const { return address_; }

  v1::CreateVmRequest create;
  v1::UpdateVmRequest update;
  v1::Vm labelled;
  lab::v1::StartWorkloadRequest start;
  google::rpc::Status failure;  // of the workload
  std::string stopped;
  v1::Throttle throttle;
  int other_updates = 0;
  int cancels = 0;
  std::string cancelled;
  std::string filter;
  struct sigaction interrupt_while_watched = {};

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

// Every command and group, as words behind "mmuctl".
std::vector<std::vector<std::string>> AllCommands() {
  std::set<std::vector<std::string>> all = {{}};
  const std::string table = RunLine({"help", "--all"}).out;
  for (const absl::string_view line : absl::StrSplit(table, '\n')) {
    std::vector<std::string> words =
        absl::StrSplit(line.substr(0, line.find("  ")), ' ', absl::SkipEmpty());
    if (words.size() < 2 || words[0] != "mmuctl") continue;
    for (size_t size = 1; size < words.size(); ++size) {
      all.insert({words.begin() + 1, words.begin() + 1 + size});
    }
  }
  return {all.begin(), all.end()};
}

TEST(MmuctlHelpTest, EveryLevelHasHelpWithExamplesIn80Columns) {
  const auto commands = AllCommands();
  EXPECT_GT(commands.size(), 50u);
  for (const std::vector<std::string>& command : commands) {
    std::vector<std::string> line = command;
    line.push_back("--help");
    const Result result = RunLine(line);
    const std::string name = absl::StrJoin(command, " ");
    EXPECT_EQ(result.exit_code, kExitOk) << name;
    EXPECT_TRUE(Contains(result.out, "examples:\n  ")) << name << result.out;
    EXPECT_TRUE(
        Contains(result.out,
                 absl::StrCat("usage: mmuctl", name.empty() ? "" : " ", name)))
        << name << result.out;
    EXPECT_EQ(result.err, "") << name;
    for (const absl::string_view text : absl::StrSplit(result.out, '\n')) {
      EXPECT_LE(text.size(), 80u) << name << ": " << text;
    }
    // `help COMMAND` is the same.
    line = command;
    line.insert(line.begin(), "help");
    EXPECT_EQ(RunLine(line).out, result.out) << name;
  }
}

TEST(MmuctlHelpTest, ListOfAllCommandsIsIn80Columns) {
  const std::string list = RunLine({"help", "--all"}).out;
  for (const absl::string_view line : absl::StrSplit(list, '\n')) {
    EXPECT_LE(line.size(), 80u) << line;
  }
  EXPECT_TRUE(
      Contains(list,
               "mmuctl vm update          Changes the labels of a VM or "
               "its limit on shadow\n                          pages\n"))
      << list;
}

TEST(MmuctlHelpTest, DiscardIsAboutPagesThatWereNotAcknowledged) {
  const std::string help = RunLine({"memslot", "delete", "--help"}).out;
  EXPECT_TRUE(Contains(help, "acknowledged")) << help;
  EXPECT_FALSE(Contains(help, "cleared")) << help;
}

TEST(MmuctlHelpTest, HelpOfWhatIsNoCommandNamesThoseThereAre) {
  const Result result = RunLine({"help", "split", "peek"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err,
                       "mmuctl split has no command 'peek'; it has "
                       "start, update"))
      << result.err;
}

TEST(MmuctlHelpTest, VersionIsTheReleases) {
  const Result result = RunLine({"--version"});
  EXPECT_EQ(result.exit_code, kExitOk);
  EXPECT_EQ(result.out, absl::StrCat("mmuctl ", v1::kRelease, "\n"));
}

TEST(MmuctlHelpTest, TopLevelListsTheExitCodes) {
  EXPECT_TRUE(Contains(RunLine({"--help"}).out, ExitCodeHelp()));
}

TEST(MmuctlUsageTest, WrongCommandLinesSayWhereHelpIs) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{
           {},
           {"nonsense"},
           {"vm"},
           {"vm", "get"},
           {"vm", "get", "a", "b"},
           {"vm", "create", "a", "--memory", "4XB"},
           {"vm", "create", "a", "--memory", "1GiB", "--memslot", "0:0+1M"},
           {"vm", "create", "a", "--memory", "1G", "--host-page-size", "3m"},
           {"vm", "create", "a", "--memslot", "0:nothing"},
           {"vm", "create", "a", "--mmu", "tdb"},
           {"vm", "create", "a", "--guest-paging", "3level"},
           {"vm", "update", "a", "--label", "owner"},
           {"debug", "tables", "a", "--level", "6"},
           {"debug", "tables", "a", "--gfn", "1", "--range", "0+4K"},
           {"workload", "start", "a"},
           {"workload", "start", "a", "--pattern", "zipf", "--trace", "t"},
           {"dirty-log", "harvest", "a", "--clear-range", "4K"},
           {"split", "start", "a", "--max-lock-hold", "200"},
           {"split", "update", "a", "--max-pages-per-second", "many"},
           {"--timeout", "soon", "vm", "list"}}) {
    const Result result = RunLine(command);
    EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
    EXPECT_TRUE(Contains(result.err, "error: ")) << result.err;
    EXPECT_TRUE(Contains(result.err, "--help\n")) << result.err;
    EXPECT_EQ(result.out, "");
  }
}

TEST(MmuctlUsageTest, UsageErrorNamesTheCommandItBelongsTo) {
  EXPECT_TRUE(Contains(RunLine({"vm", "get"}).err, "see mmuctl vm get --help"));
}

TEST(MmuctlUsageTest, UnknownCommandIsNamedWithThoseThatExist) {
  const struct {
    std::vector<std::string> line;
    const char* says;
  } kCases[] = {
      {{"dirty-log", "list"},
       "error: mmuctl dirty-log has no command 'list'; it has start, get, "
       "acquire, seal, read, peek, clear, ack, harvest, stop, rate\n"},
      {{"split", "list", "alpha"}, "mmuctl split has no command 'list'; it"},
      {{"nonsense"}, "mmuctl has no command 'nonsense'; it has vm, memslot,"},
      {{"--json", "vm", "show", "alpha"}, "mmuctl vm has no command 'show';"},
      {{"vm"},
       "error: mmuctl vm needs one of its commands: create, get, list, "
       "update, pause, resume, delete\n"},
      {{}, "error: mmuctl needs one of its commands: vm, memslot,"},
  };
  for (const auto& wrong : kCases) {
    const Result result = RunLine(wrong.line);
    EXPECT_EQ(result.exit_code, kExitUsage);
    EXPECT_TRUE(Contains(result.err, wrong.says)) << result.err;
  }
}

TEST(MmuctlUsageTest, UnknownOptionIsNamedWhateverElseIsMissing) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"mmuctl"},
                                             {"mmuctl", "vm"},
                                             {"mmuctl", "vm", "get"},
                                             {"mmuctl", "vm", "get", "a"},
                                             {"mmuctl", "vm", "list"}}) {
    for (const char* option : {"--nonsense", "-x", "--nonsense=1"}) {
      std::vector<std::string> line(command.begin() + 1, command.end());
      line.push_back(option);
      const Result result = RunLine(line);
      EXPECT_EQ(result.exit_code, kExitUsage);
      const auto last = command.end() - (command.back() == "a" ? 1 : 0);
      EXPECT_TRUE(Contains(
          result.err,
          absl::StrCat("error: ", absl::StrJoin(command.begin(), last, " "),
                       " has no option '", option, "'\n")))
          << result.err;
    }
  }
}

TEST(MmuctlUsageTest, WordThatIsNoChoiceIsNamedWithTheChoices) {
  const Result result =
      RunLine({"vm", "create", "a", "--memory", "1G", "--backing", "nothing"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(
      result.err, "'nothing' is not one of anonymous|memfd|metadata-only\n"))
      << result.err;
}

TEST(MmuctlUsageTest, NoMemoryIsNotASizeOfMemory) {
  const Result result = RunLine({"vm", "create", "a", "--memory", "0"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err, "leave --memory out")) << result.err;
}

TEST(MmuctlUsageTest, DaemonThatIsNotThereHasItsOwnExitCode) {
  const Result result = RunLine({"--address", "unix:/nonexistent/mmud.sock",
                                 "--timeout", "1s", "vm", "list"});
  EXPECT_EQ(result.exit_code, kExitUnavailable) << result.err;
  EXPECT_TRUE(
      Contains(result.err, "is mmud running at unix:/nonexistent/mmud.sock?"))
      << result.err;
}

TEST(MmuctlUsageTest, BadAddressIsAWrongCommandLine) {
  const Result result = RunLine({"-a", "localhost", "vm", "list"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err,
                       "address 'localhost' has no host or no port; give "
                       "unix:/path/of/socket or host:port, for example "
                       "unix:/run/mmud/mmud.sock or localhost:9443\n"))
      << result.err;
  // What needs no daemon does not mind.
  EXPECT_EQ(RunLine({"-a", "localhost", "help"}).exit_code, kExitOk);
}

TEST(MmuctlUsageTest, LooksWhereMmudListensByDefault) {
  if (std::getenv("MMUD_ADDRESS") != nullptr) GTEST_SKIP();
  const Result help = RunLine({"--help"});
  EXPECT_TRUE(Contains(help.out, v1::kDefaultAddress)) << help.out;
}

TEST(MmuctlUsageTest, ErrorsAreJsonWhereJsonWasAskedFor) {
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{
           {"--json", "nonsense"}, {"vm", "get", "--json"}, {"--json"}}) {
    const Result result = RunLine(line);
    EXPECT_EQ(result.exit_code, kExitUsage);
    EXPECT_EQ(result.out, "");
    const Json json = Json::parse(result.err, nullptr, false);
    ASSERT_TRUE(json.is_object()) << result.err;
    EXPECT_EQ(json["error"]["exit_code"], kExitUsage);
    EXPECT_TRUE(Contains(json["error"]["fix"], "--help")) << result.err;
  }
}

TEST(MmuctlTest, SizesReachTheDaemonInBytes) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "create", "vms/alpha", "--vcpus", "2", "--memory",
                  "4GiB", "--host-page-size", "2M"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm_id(), "alpha");
  EXPECT_EQ(daemon.create.vm().vcpu_count(), 2);
  ASSERT_EQ(daemon.create.vm().memslots_size(), 1);
  EXPECT_EQ(daemon.create.vm().memslots(0).size_bytes(), int64_t{4} << 30);
  EXPECT_EQ(daemon.create.vm().memslots(0).host_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_TRUE(Contains(result.out, "vms/alpha"));
  EXPECT_TRUE(Contains(result.out, "4 GiB"));
}

TEST(MmuctlTest, TheMmuAndTheGuestsPagingReachTheDaemon) {
  FakeDaemon daemon;
  Result result = daemon.Run(
      {"vm", "create", "alpha", "--mmu", "nested", "--entry-format", "npt",
       "--levels", "5", "--guest-paging", "5level", "--guest-large-pages",
       "--guest-processes", "3", "--shadow-page-limit", "1000"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().nested().entry_format(), v1::ENTRY_FORMAT_NPT);
  EXPECT_EQ(daemon.create.vm().nested().page_table_levels(), 5);
  const v1::GuestPaging& paging = daemon.create.vm().guest_paging();
  EXPECT_EQ(paging.mode(), v1::GUEST_PAGING_MODE_5LEVEL);
  EXPECT_EQ(paging.large_pages(), v1::FEATURE_ON);
  EXPECT_EQ(paging.process_count(), 3);
  EXPECT_EQ(daemon.create.vm().shadow_page_limit(), 1000);
  EXPECT_TRUE(Contains(result.out, "nested, npt, 5 levels")) << result.out;
  EXPECT_TRUE(
      Contains(result.out, "5level, large pages, 3 processes per vCPU\n"))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "up to 1,000\n")) << result.out;

  result = daemon.Run({"vm", "create", "alpha", "--mmu", "tdp_shadow", "--pml",
                       "on", "--ad-bits", "on"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().tdp_shadow().pml(), v1::FEATURE_ON);
  EXPECT_FALSE(daemon.create.vm().has_guest_paging());

  result = daemon.Run({"vm", "create", "alpha", "--mmu", "shadow",
                       "--max-page-size", "2m", "--slot-zap", "slot"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().shadow().max_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_EQ(daemon.create.vm().shadow().slot_zap(), v1::SLOT_ZAP_SLOT);

  result = daemon.Run({"vm", "create", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(daemon.create.vm().has_tdp());
}

TEST(MmuctlTest, WhatOrdinaryTablesCannotHaveIsRefused) {
  FakeDaemon daemon;
  for (const std::vector<std::string>& option :
       std::vector<std::vector<std::string>>{
           {"--pml", "on"}, {"--ad-bits", "off"}, {"--entry-format", "ept"}}) {
    const Result result = daemon.Run(
        {"vm", "create", "alpha", "--mmu", "shadow", option[0], option[1]});
    EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
    EXPECT_TRUE(Contains(result.err, "--mmu shadow")) << result.err;
  }
}

TEST(MmuctlTest, MemslotsHaveAShortForm) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "create", "alpha", "--memslot",
                                    "0:0+2GiB:2m", "1:4GiB+2GiB:1g:memfd"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  ASSERT_EQ(daemon.create.vm().memslots_size(), 2);
  const v1::Memslot& second = daemon.create.vm().memslots(1);
  EXPECT_EQ(second.slot(), 1);
  EXPECT_EQ(second.gpa_bytes(), int64_t{4} << 30);
  EXPECT_EQ(second.size_bytes(), int64_t{2} << 30);
  EXPECT_EQ(second.host_page_size(), v1::PAGE_SIZE_1G);
  EXPECT_EQ(second.backing(), v1::MEMORY_BACKING_MEMFD);
}

TEST(MmuctlTest, BackingsAreWrittenWithHyphensOrAsInTheProto) {
  FakeDaemon daemon;
  for (const char* word : {"metadata-only", "metadata_only", "METADATA_ONLY"}) {
    for (const std::vector<std::string>& memory :
         {std::vector<std::string>{"--memory", "1G", "--backing", word},
          {"--memslot", absl::StrCat("0:0+1G:2m:", word)}}) {
      std::vector<std::string> line = {"vm", "create", "a"};
      line.insert(line.end(), memory.begin(), memory.end());
      const Result result = daemon.Run(line);
      ASSERT_EQ(result.exit_code, kExitOk) << result.err;
      EXPECT_EQ(daemon.create.vm().memslots(0).backing(),
                v1::MEMORY_BACKING_METADATA_ONLY);
    }
  }
}

TEST(MmuctlTest, PatternsAreFilledIn) {
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

TEST(MmuctlTest, AWorkloadIsNamedByItsVm) {
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

TEST(MmuctlTest, AWatchedWorkloadIsPrintedAtItsEndWithItsError) {
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
  // Who does not watch sees what there is now.
  result = daemon.Run(
      {"workload", "start", "alpha", "--pattern", "uniform", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["name"], WorkloadOf("vms/alpha").name()) << result.out;
  EXPECT_EQ(json["state"], "WORKLOAD_STATE_RUNNING") << result.out;
}

TEST(MmuctlTest, ListsAreReadToTheirLastPage) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "list"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "vms/a"));
  EXPECT_TRUE(Contains(result.out, "vms/b"));
  const Result slots = daemon.Run({"memslot", "list", "a"});
  EXPECT_TRUE(Contains(slots.out, "\n   3 ")) << slots.out;
  EXPECT_TRUE(Contains(slots.out, "\n   7 ")) << slots.out;
  const Result workloads = daemon.Run({"workload", "list"});
  EXPECT_TRUE(Contains(workloads.out, "vms/a  2026-11-18 11:06:40 UTC  90.0 s"))
      << workloads.out;
  EXPECT_TRUE(Contains(workloads.out, "vms/b ")) << workloads.out;
}

TEST(MmuctlTest, LabelsThatAreNotNamedStay) {
  FakeDaemon daemon;
  daemon.labelled.set_name("vms/labelled");
  daemon.labelled.set_etag("1");
  (*daemon.labelled.mutable_labels())["keep"] = "k";
  (*daemon.labelled.mutable_labels())["old"] = "o";
  daemon.other_updates = 2;
  const Result result =
      daemon.Run({"vm", "update", "labelled", "--label", "new=n=1", "keep=K",
                  "--remove-label", "old", "--shadow-page-limit", "100"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const v1::Vm& vm = daemon.update.vm();
  EXPECT_EQ(vm.labels_size(), 3);
  EXPECT_EQ(vm.labels().at("keep"), "K");
  EXPECT_EQ(vm.labels().at("new"), "n=1");
  EXPECT_EQ(vm.labels().at("other"), "xx");
  EXPECT_EQ(vm.shadow_page_limit(), 100);
  EXPECT_EQ(daemon.update.etag(), "1++");
  EXPECT_EQ(absl::StrJoin(daemon.update.update_mask().paths(), " "),
            "shadow_page_limit labels");
  EXPECT_EQ(daemon.Run({"vm", "update", "labelled"}).exit_code, kExitUsage);
}

TEST(MmuctlTest, ALimitAloneIsSentWithoutALook) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "update", "alpha", "--shadow-page-limit", "64"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(absl::StrJoin(daemon.update.update_mask().paths(), " "),
            "shadow_page_limit");
  EXPECT_EQ(daemon.update.etag(), "");
}

TEST(MmuctlTest, JsonHasTheNamesOfTheProto) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "create", "a", "--memory", "1G", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(result.out[0], '{');
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["vm"]["memslots"][0]["size_bytes"], 1073741824) << result.out;
}

TEST(MmuctlTest, LimitsThatAreNotGivenAreNotSent) {
  FakeDaemon daemon;
  v1::Throttle expected;
  expected.mutable_max_lock_hold()->set_nanos(50'000);
  Result result =
      daemon.Run({"split", "update", "2f", "--max-lock-hold", "50us"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.throttle.DebugString(), expected.DebugString());
  // 0 is given, and lifts a limit.
  expected.Clear();
  expected.set_max_flushes_per_second(0);
  result =
      daemon.Run({"split", "update", "2f", "--max-flushes-per-second", "0"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.throttle.DebugString(), expected.DebugString());
  EXPECT_EQ(daemon.Run({"split", "update", "2f"}).exit_code, kExitUsage);
}

TEST(MmuctlTest, AnEtagOfTheUsersIsSent) {
  FakeDaemon daemon;
  const Result result = daemon.Run(
      {"split", "update", "2f", "--min-pause", "5s", "--etag", "old"});
  EXPECT_EQ(result.exit_code, kExitConflict);
  EXPECT_FALSE(daemon.throttle.has_min_pause());
}

TEST(MmuctlTest, SplitCommandsLeaveARecoveryAlone) {
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

TEST(MmuctlTest, AnOperationIsNamedByItsBeginningOrItsVm) {
  FakeDaemon daemon;
  const struct {
    const char* text;
    const char* name;
  } kCases[] = {
      {"2f96", kSplit},
      {"2F96", kSplit},
      {"operations/1", kRecovery},
      // It runs, and the newer one does not.
      {"alpha", kSplit},
      {"vms/beta", kRecovery},
      // What is whole is for the daemon to know.
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

TEST(MmuctlTest, OperationsAreFilteredByTheDaemonAndHaveTimes) {
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

TEST(MmuctlTest, SlotsStandBehindTheVmInEveryCommand) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"memslot", "set"},
                                             {"memslot", "get"},
                                             {"memslot", "delete"},
                                             {"dirty-log", "ack"},
                                             {"dirty-log", "clear"},
                                             {"dirty-log", "peek"},
                                             {"dirty-log", "read"},
                                             {"dirty-log", "start"},
                                             {"dirty-log", "harvest"}}) {
    std::vector<std::string> line = command;
    line.push_back("--help");
    const std::string help = RunLine(line).out;
    EXPECT_TRUE(Contains(help, "VM SLOT\n") || Contains(help, "VM [SLOT]\n") ||
                Contains(help, "VM [SLOT...]\n"))
        << help;
    EXPECT_FALSE(Contains(help, "--slot ")) << help;
  }
}

TEST(MmuctlTest, ListsHaveAShortName) {
  FakeDaemon daemon;
  EXPECT_EQ(daemon.Run({"vm", "ls"}).out, daemon.Run({"vm", "list"}).out);
  EXPECT_EQ(daemon.Run({"op", "ls"}).out, daemon.Run({"op", "list"}).out);
  EXPECT_EQ(daemon.Run({"workload", "ls"}).out,
            daemon.Run({"workload", "list"}).out);
}

TEST(MmuctlTest, ErrorsOfTheDaemonGoToStderrWithAWayOut) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "get", "alpha"});
  EXPECT_EQ(result.exit_code, kExitNotFound);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            absl::StrCat("error: vms/alpha does not exist\n"
                         "  reason:  VM_NOT_FOUND\n"
                         "  fix:     list the VMs: mmuctl --address ",
                         daemon.address(), " vm list\n"));
}

TEST(MmuctlTest, TraceFileThatIsNotThereNeedsNoDaemon) {
  EXPECT_EQ(RunLine({"trace", "info", "/nonexistent/x.trace"}).exit_code,
            kExitNotFound);
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
