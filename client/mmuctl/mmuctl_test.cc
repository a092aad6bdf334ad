// The command line as a person meets it: help, usage errors, exit codes.

#include "client/mmuctl/mmuctl.h"

#include <unistd.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/text/error_text.h"
#include "client/text/progress.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "mmud/v1/workload_service.grpc.pb.h"

namespace mmud::client {
namespace {

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

Result RunLine(std::vector<std::string> arguments) {
  std::ostringstream out, err;
  const int exit_code =
      RunMmuctl(std::move(arguments), out, err, ProgressStyle::kQuiet);
  return {exit_code, out.str(), err.str()};
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class FakeDaemon final : public v1::VmService::Service,
                         public v1::WorkloadService::Service {
 public:
  FakeDaemon() {
    // Not in TempDir(): its path may be too long for a socket.
    address_ = absl::StrCat("unix:/tmp/mmuctl_test.", getpid(), ".sock");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1::VmService::Service*>(this));
    builder.RegisterService(static_cast<v1::WorkloadService::Service*>(this));
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

  grpc::Status GetVm(grpc::ServerContext*, const v1::GetVmRequest* request,
                     v1::GetVmResponse*) override {
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

  grpc::Status ListVms(grpc::ServerContext*, const v1::ListVmsRequest* request,
                       v1::ListVmsResponse* response) override {
    // Two pages of one VM each.
    response->add_vms()->set_name(request->page_token().empty() ? "vms/a"
                                                                : "vms/b");
    if (request->page_token().empty()) response->set_next_page_token("more");
    return grpc::Status::OK;
  }

  grpc::Status StartWorkload(
      grpc::ServerContext*, const v1::StartWorkloadRequest* request,
      google::longrunning::Operation* operation) override {
    start = *request;
    operation->set_name("operations/1");
    return grpc::Status::OK;
  }

  Result Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--address", address_});
    return RunLine(std::move(arguments));
  }

  v1::CreateVmRequest create;
  v1::StartWorkloadRequest start;

 private:
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

TEST(MmuctlHelpTest, EveryLevelHasHelpWithExamples) {
  const std::vector<std::vector<std::string>> commands = {
      {},
      {"vm"},
      {"vm", "create"},
      {"vm", "get"},
      {"vm", "list"},
      {"vm", "set-shadow-page-limit"},
      {"vm", "delete"},
      {"memslot"},
      {"memslot", "set"},
      {"memslot", "delete"},
      {"memslot", "list"},
      {"memory"},
      {"memory", "read"},
      {"workload"},
      {"workload", "start"},
      {"workload", "stop"},
      {"workload", "pause"},
      {"workload", "resume"},
      {"workload", "status"},
      {"trace"},
      {"trace", "record"},
      {"trace", "info"},
      {"dirty-log"},
      {"dirty-log", "start"},
      {"dirty-log", "stop"},
      {"dirty-log", "get"},
      {"dirty-log", "clear"},
      {"dirty-log", "rate"},
      {"dirty-log", "harvest"},
      {"split"},
      {"split", "start"},
      {"split", "update"},
      {"split", "pause"},
      {"split", "resume"},
      {"split", "cancel"},
      {"split", "watch"},
      {"recover"},
      {"age"},
      {"stats"},
      {"debug"},
      {"debug", "audit"},
      {"debug", "tables"},
      {"op"},
      {"op", "list"},
      {"op", "get"},
      {"op", "wait"},
      {"op", "cancel"},
      {"op", "delete"},
      {"health"},
      {"capabilities"},
      {"build-info"}};
  for (std::vector<std::string> command : commands) {
    command.push_back("--help");
    const Result result = RunLine(command);
    const std::string name = command.front();
    EXPECT_EQ(result.exit_code, kExitOk) << name;
    EXPECT_TRUE(Contains(result.out, "examples:\n  ")) << name << result.out;
    EXPECT_TRUE(Contains(result.out, "mmuctl ")) << name;
    EXPECT_EQ(result.err, "") << name;
  }
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
           {"vm", "set-shadow-page-limit", "a"},
           {"debug", "tables", "a", "--level", "6"},
           {"debug", "tables", "a", "--gfn", "1", "--range", "0+4K"},
           {"workload", "start", "a"},
           {"workload", "start", "a", "--pattern", "zipf", "--trace", "t"},
           {"dirty-log", "harvest", "a", "--clear-range", "4K"},
           {"split", "start", "a", "--max-lock-hold", "200"},
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
      {{"dirty-log", "peek"},
       "error: mmuctl dirty-log has no command 'peek'; it has start, stop, "
       "get, clear, rate, harvest\n"},
      {{"split", "list", "alpha"}, "mmuctl split has no command 'list'; it"},
      {{"nonsense"}, "mmuctl has no command 'nonsense'; it has vm, memslot,"},
      {{"--json", "vm", "show", "alpha"}, "mmuctl vm has no command 'show';"},
      {{"vm"}, "A subcommand is required"},
  };
  for (const auto& wrong : kCases) {
    const Result result = RunLine(wrong.line);
    EXPECT_EQ(result.exit_code, kExitUsage);
    EXPECT_TRUE(Contains(result.err, wrong.says)) << result.err;
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

TEST(MmuctlUsageTest, BadAddressIsRefused) {
  EXPECT_EQ(RunLine({"--address", "nowhere", "vm", "list"}).exit_code,
            kExitRefused);
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
    EXPECT_EQ(result.exit_code, kExitRefused) << result.err;
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
  EXPECT_EQ(daemon.start.pattern().zipf().exponent(), 1.2);
  EXPECT_EQ(daemon.start.pattern().write_fraction(), 0.5);
  EXPECT_EQ(daemon.start.max_accesses_per_second(), 1000);
  EXPECT_EQ(daemon.start.max_duration().seconds(), 30);
}

TEST(MmuctlTest, ListsAreReadToTheirLastPage) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "list"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "vms/a"));
  EXPECT_TRUE(Contains(result.out, "vms/b"));
}

TEST(MmuctlTest, JsonHasTheNamesOfTheProto) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "create", "a", "--memory", "1G", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(result.out[0], '{');
  EXPECT_TRUE(Contains(result.out, "\"size_bytes\": \"1073741824\""))
      << result.out;
}

TEST(MmuctlTest, ErrorsOfTheDaemonGoToStderrWithAWayOut) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "get", "alpha"});
  EXPECT_EQ(result.exit_code, kExitNotFound);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            "error: vms/alpha does not exist\n"
            "  reason:  VM_NOT_FOUND\n"
            "  fix:     see which VMs there are: mmuctl vm list\n");
}

TEST(MmuctlTest, TraceFileThatIsNotThereNeedsNoDaemon) {
  EXPECT_EQ(RunLine({"trace", "info", "/nonexistent/x.trace"}).exit_code,
            kExitNotFound);
}

}  // namespace
}  // namespace mmud::client
