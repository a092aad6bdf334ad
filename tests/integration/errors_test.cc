// Every reason of ErrorReason that a caller can provoke, and the form that all
// errors share.

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
#include "tests/integration/guest.h"

namespace mmud::integration {
namespace {

constexpr char kUuid[] = "3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b";

// Reasons that no test can provoke, each with why.
const std::map<std::string, std::string>& NotProvoked() {
  static const auto* const kReasons = new std::map<std::string, std::string>{
      {"ERROR_REASON_UNSPECIFIED", "never sent"},
      {"CALL_CANCELLED", "its caller has left and cannot receive it"},
      {"INTERNAL_ERROR", "a fault of the daemon"},
      {"THREADS_EXHAUSTED", "no limit on threads binds the root user"},
  };
  return *kReasons;
}

// Limits on what goes on at a time, of which there is room again without
// anybody's doing.
const std::set<std::string>& Budgets() {
  static const auto* const kBudgets =
      new std::set<std::string>{"max_operations", "max_short_calls",
                                "max_long_calls", "max_long_calls_per_vm",
                                "max_streams",    "max_streams_per_vm",
                                "max_waits",      "max_reflections"};
  return *kBudgets;
}

// One call that must fail. "$0" in the request stands for the VM of the case,
// "$1" for what `prepare` returned, for example the name of an operation.
struct Case {
  const char* reason;
  grpc::StatusCode code;
  const char* method;
  const char* request;
  const char* field;     // of the ErrorInfo; "" when it has none
  const char* mentions;  // in the message: the value, the name, the limit
  std::function<std::string(const TestClient&, const Guest&)> prepare = nullptr;
};

constexpr auto kInvalid = grpc::StatusCode::INVALID_ARGUMENT;
constexpr auto kNotFound = grpc::StatusCode::NOT_FOUND;
constexpr auto kExists = grpc::StatusCode::ALREADY_EXISTS;
constexpr auto kPrecondition = grpc::StatusCode::FAILED_PRECONDITION;
constexpr auto kAborted = grpc::StatusCode::ABORTED;
constexpr auto kExhausted = grpc::StatusCode::RESOURCE_EXHAUSTED;

std::string Log(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  return "";
}

// These return the id of the log.
std::string SealOnce(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  guest.WritePages(8);
  return guest.Seal().log_id;
}

// Dirty pages of the open epoch alone.
std::string WriteOnly(const TestClient&, const Guest& guest) {
  guest.StartDirtyLog();
  guest.WritePages(5);
  return "";
}

std::string SealTwice(const TestClient& client, const Guest& guest) {
  const std::string log_id = SealOnce(client, guest);
  guest.Seal();
  return log_id;
}

// Pages of four epochs are in flight, and one is sealed; the fifth.
std::string FillFlights(const TestClient& client, const Guest& guest) {
  guest.StartDirtyLog();
  v1::SealDirtyLogRequest seal;
  seal.set_vm(guest.name());
  seal.set_owner_token(kOwnerToken);
  for (int i = 0; i < 5; ++i) {
    guest.WritePages(i + 1);
    const int64_t epoch =
        client.Must(&v1::DirtyLogService::Stub::SealDirtyLog, seal).epoch();
    if (i < 4) {
      EXPECT_TRUE(guest.Clear(epoch, {i}).status.ok());
    }
  }
  return "";
}

// Somebody else has acquired the log.
std::string TakeOver(const TestClient& client, const Guest& guest) {
  guest.StartDirtyLog();
  v1::AcquireDirtyLogRequest acquire;
  acquire.set_vm(guest.name());
  acquire.set_owner("the next");
  acquire.set_owner_token("token of the next owner");
  acquire.set_force(true);
  client.Must(&v1::DirtyLogService::Stub::AcquireDirtyLog, acquire);
  return "";
}

// A start that takes for ever is at work.
std::string StartSlowly(const TestClient& client, const Guest& guest) {
  v1::StartDirtyLogRequest request;
  request.set_vm(guest.name());
  request.set_owner(kOwner);
  request.set_owner_token(kOwnerToken);
  request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  client.Must(&v1::DirtyLogService::Stub::StartDirtyLog, request);
  return "";
}

// These return the name of the workload.
std::string RunWorkload(const TestClient&, const Guest& guest) {
  return guest.StartRandomWrites(1);
}

std::string EndWorkload(const TestClient&, const Guest& guest) {
  guest.WritePages(1);
  return guest.LastWorkload().name();
}

std::string RunSplit(const TestClient&, const Guest& guest) {
  v1::SplitHugePagesRequest request;
  request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  return guest.StartSplit(request);
}

std::string FinishSplit(const TestClient& client, const Guest& guest) {
  const std::string name = guest.StartSplit(v1::SplitHugePagesRequest());
  client.WaitDone(name);
  return name;
}

std::string UseRequestId(const TestClient& client, const Guest& guest) {
  v1::PauseVcpusRequest request;
  request.set_vm(guest.name());
  request.set_request_id(kUuid);
  client.Must(&v1::VmService::Stub::PauseVcpus, request);
  v1::ResumeVcpusRequest resume;
  resume.set_vm(guest.name());
  client.Must(&v1::VmService::Stub::ResumeVcpus, resume);
  return "";
}

const std::vector<Case>& Cases() {
  static const auto* const kCases = new std::vector<Case>{
      {"INVALID_NAME", kInvalid, "mmud.v1.VmService/GetVm", "name: 'Alpha'",
       "name", "\"Alpha\""},
      {"INVALID_NAME", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: '-a' vm { tdp {} }", "vm_id", "\"-a\""},
      {"INVALID_NAME", kInvalid, "mmud.v1.VmService/DeleteMemslot",
       "name: '$0/memslots/01'", "name", "/memslots/01\""},
      {"INVALID_NAME", kInvalid, "google.longrunning.Operations/GetOperation",
       "name: 'operations/x'", "name", "\"operations/x\""},
      {"INVALID_NAME", kInvalid, "mmud.lab.v1.WorkloadService/GetWorkload",
       "name: '$0/workloads/7'", "name", "/workloads/7\""},
      {"INVALID_NAME", kInvalid, "mmud.lab.v1.WorkloadService/StopWorkload",
       "name: '$0'", "name", "vms/{vm}/workloads/{uuid}"},
      {"INVALID_NAME", kInvalid, "mmud.lab.v1.WorkloadService/ListWorkloads",
       "vm: 'Alpha'", "vm", "\"Alpha\""},
      {"INVALID_REQUEST_ID", kInvalid, "mmud.v1.VmService/PauseVcpus",
       "vm: '$0' request_id: 'seven'", "request_id", "\"seven\""},
      {"INVALID_PAGE_SIZE", kInvalid, "mmud.v1.VmService/ListVms",
       "page_size: -3", "page_size", "-3"},
      {"INVALID_PAGE_SIZE", kInvalid, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0' target_page_size: PAGE_SIZE_1G", "target_page_size", "1G"},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.VmService/ListVms",
       "page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.VmService/ListMemslots",
       "vm: '$0' page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.StatsService/GetMmuStats",
       "vm: '$0' page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.StatsService/GetMmuStats",
       "page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_PAGE_SIZE", kInvalid, "mmud.v1.StatsService/GetMmuStats",
       "page_size: -3", "page_size", "-3"},
      {"INVALID_PAGE_SIZE", kInvalid, "mmud.v1.VmService/ListMemslots",
       "vm: '$0' page_size: -3", "page_size", "-3"},
      {"INVALID_PAGE_SIZE", kInvalid,
       "mmud.lab.v1.WorkloadService/ListWorkloads", "page_size: -3",
       "page_size", "-3"},
      {"INVALID_PAGE_TOKEN", kInvalid,
       "mmud.lab.v1.WorkloadService/ListWorkloads", "page_token: 'xyz'",
       "page_token", "\"xyz\""},
      {"INVALID_PAGE_TOKEN", kInvalid,
       "mmud.lab.v1.WorkloadService/ListWorkloads",
       "vm: '$0' page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/GetVm",
       "name: '$0' view: 9", "view", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/ListVms", "view: 9",
       "view", "9"},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.DebugService/ListPageTables",
       "vm: '$0' page_token: 'xyz'", "page_token", "\"xyz\""},
      {"INVALID_FILTER", kInvalid,
       "google.longrunning.Operations/ListOperations", "filter: 'done'",
       "filter", "\"done\""},
      {"UNALIGNED", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 1073741825 size_bytes: 4096 }",
       "memslot.gpa_bytes", "1073741825"},
      {"UNALIGNED", kInvalid, "mmud.v1.AgingService/AgeRange",
       "vm: '$0' mode: AGING_MODE_TEST ranges { size_bytes: 4097 }",
       "ranges[0].size_bytes", "4097"},
      {"INVALID_SIZE", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 1073741824 }",
       "memslot.size_bytes", "0"},
      {"INVALID_RANGE", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: -4096 size_bytes: 4096 }",
       "memslot.gpa_bytes", "-4096"},
      {"INVALID_RANGE", kInvalid, "mmud.v1.DebugService/ListPageTables",
       "vm: '$0' level: 6", "level", "6"},
      {"INVALID_RANGE", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' shadow_page_limit: -5 } "
       "update_mask { paths: 'shadow_page_limit' }",
       "vm.shadow_page_limit", "-5"},
      {"INVALID_UPDATE_MASK", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' shadow_page_limit: 100 }", "update_mask", "empty"},
      {"INVALID_UPDATE_MASK", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' } update_mask { paths: 'labels' paths: 'vcpu_count' }",
       "update_mask", "\"vcpu_count\""},
      {"INVALID_LABEL", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' labels { key: 'Team' value: 'x' } } "
       "update_mask { paths: 'labels' }",
       "vm.labels", "\"Team\""},
      {"INVALID_LABEL", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp {} labels { key: 'team' value: 'a b' } }",
       "vm.labels[team]", "\"a b\""},
      {"INVALID_NAME", kInvalid, "mmud.v1.VmService/UpdateVm",
       "update_mask { paths: 'labels' }", "vm.name", "vms/alpha"},
      {"INVALID_SLOT", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 32764 size_bytes: 4096 }", "memslot.slot",
       "32764"},
      {"TOO_MANY_PAGES", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp {} memslots { size_bytes: 109950062860075008 } "
       "}",
       "vm.memslots[0].size_bytes", "109950062860075008"},
      {"TOO_MANY_PAGES", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 1073741824 "
       "size_bytes: 8796093022208 backing: MEMORY_BACKING_METADATA_ONLY }",
       "memslot.size_bytes", "2147483647"},
      {"REGION_OVERLAP", kExists, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 4096 size_bytes: 4096 }",
       "memslot.gpa_bytes", "slot 0"},
      {"REGION_OVERLAP", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp {} memslots { size_bytes: 8192 } "
       "memslots { slot: 1 gpa_bytes: 4096 size_bytes: 4096 } }",
       "vm.memslots[1].gpa_bytes", "slot 0"},
      {"INVALID_VCPU_COUNT", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp {} vcpu_count: 257 }", "vm.vcpu_count", "257"},
      {"INVALID_VCPU_COUNT", kInvalid,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { vcpu_count: 3 pattern { uniform {} } }",
       "workload.vcpu_count", "3"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm {}", "vm.mmu", "not set"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { page_table_levels: 3 } }",
       "vm.tdp.page_table_levels", "is 3"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { entry_format: ENTRY_FORMAT_NPT "
       "pml: FEATURE_ON } }",
       "vm.tdp.pml", "EPT"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { accessed_dirty_bits: FEATURE_OFF "
       "pml: FEATURE_ON } }",
       "vm.tdp.pml", "Dirty bits"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { entry_format: ENTRY_FORMAT_NPT "
       "accessed_dirty_bits: FEATURE_OFF } }",
       "vm.tdp.accessed_dirty_bits", "NPT"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow { page_table_levels: 6 } }",
       "vm.shadow.page_table_levels", "is 6"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { nested { entry_format: ENTRY_FORMAT_NPT "
       "pml: FEATURE_ON } }",
       "vm.nested.pml", "EPT"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp_shadow {} guest_paging {} }", "vm.guest_paging",
       "shadow or nested"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { nested {} guest_paging { "
       "mode: GUEST_PAGING_MODE_PAE } }",
       "vm.guest_paging.mode", "is PAE"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow {} guest_paging { "
       "mode: GUEST_PAGING_MODE_5LEVEL } }",
       "vm.guest_paging.mode", "walks 4 levels"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow {} guest_paging { process_count: 65 } }",
       "vm.guest_paging.process_count", "is 65"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow {} guest_paging { "
       "accessed_dirty_bits: FEATURE_OFF } }",
       "vm.guest_paging.accessed_dirty_bits", "off"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow {} shadow_page_limit: 63 }",
       "vm.shadow_page_limit", "is 63"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { shadow {} shadow_page_limit: -1 }",
       "vm.shadow_page_limit", "is -1"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp {} shadow_page_limit: 1000 }",
       "vm.shadow_page_limit", "is 1000"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern { uniform {} write_fraction: 1.5 } }",
       "workload.pattern", "1.5"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern {} }", "workload.pattern", "sequential"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload {}", "workload.pattern", "workload.trace"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern { uniform {} } access_count: -2 }",
       "workload.access_count", "-2"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern { uniform {} } "
       "max_accesses_per_second: -7 }",
       "workload.max_accesses_per_second", "-7"},
      {"INVALID_PATTERN", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern { uniform {} } max_duration {} }",
       "workload.max_duration", "is 0"},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0' throttle { chunk_bytes: 4096 }", "throttle.chunk_bytes",
       "4096"},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0' throttle { chunk_bytes: 0 }", "throttle.chunk_bytes", "is 0"},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.SplitService/RecoverHugePages",
       "vm: '$0' throttle { max_pages_per_second: -1 }",
       "throttle.max_pages_per_second", "-1"},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.SplitService/UpdateSplit",
       "operation: '$1' throttle { max_flushes_per_second: -1 }",
       "throttle.max_flushes_per_second", "-1", RunSplit},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0' throttle { max_vcpu_stall_ratio: 1.5 }",
       "throttle.max_vcpu_stall_ratio", "1.5"},
      {"INVALID_DIRTY_LOG_MODE", kInvalid,
       "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "mode: DIRTY_LOG_MODE_RING",
       "mode", "RING"},
      {"INVALID_SPLIT_POLICY", kInvalid,
       "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "initially_set: true split: DIRTY_LOG_SPLIT_EAGER",
       "split", "eager"},
      {"INVALID_TTL", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' ttl "
       "{ nanos: 5000000 }",
       "ttl", "5ms"},
      {"INVALID_LEASE", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "lease { seconds: 3601 }",
       "lease", "1h1s"},
      {"INVALID_OWNER", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "owner", "128"},
      {"INVALID_OWNER_TOKEN", kInvalid, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'short'", "owner_token",
       "5 bytes"},
      {"INVALID_OWNER_TOKEN", kInvalid, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' ", "owner_token", "0 bytes", Log},
      {"INVALID_LOG_ID", kInvalid, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' log_id: 'ABC'",
       "log_id", "ABC", Log},
      {"INVALID_LOG_ID", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' epoch: 1", "log_id", "epoch", SealOnce},
      {"INVALID_BITMAP", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 bitmap: 'abc' }",
       "pages.bitmap", "3", SealOnce},
      {"INVALID_BITMAP", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 }",
       "pages", "bitmap", SealOnce},
      {"INVALID_RANGE", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 262144 extents { extents { size_bytes: 4096 } extents { "
       "gpa_bytes: 4096 size_bytes: 4096 } } }",
       "pages.extents.extents[1]", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 4096 size_bytes: 262144 extents {} }",
       "pages.start_gpa_bytes", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "size_bytes: 4096 extents {} }",
       "pages.size_bytes", "4096", SealOnce},
      {"UNALIGNED_CLEAR", kInvalid, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 77 size_bytes: 262144 extents {} }",
       "pages.start_gpa_bytes", "77", SealOnce},
      {"GPA_OUT_OF_RANGE", grpc::StatusCode::OUT_OF_RANGE,
       "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "start_gpa_bytes: 262144 size_bytes: 8388608 extents {} }",
       "pages.start_gpa_bytes", "page 64", SealOnce},
      {"INVALID_SLOT", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' slots: 2 slots: 0", "slots[1]", "ascend", Log},
      {"INVALID_RESUME_OFFSET", kInvalid,
       "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' start { gpa_bytes: 262144 }", "start", "epoch", Log},
      {"INVALID_RESUME_OFFSET", kInvalid,
       "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 1 start { gpa_bytes: 12288 }",
       "start.gpa_bytes", "12288", SealOnce},
      {"INVALID_MESSAGE_SIZE", kInvalid, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' extents { size_bytes: 4096 } max_message_bytes: 100",
       "max_message_bytes", "100"},
      {"INVALID_DURATION", kInvalid, "mmud.v1.VmService/PauseVcpus",
       "vm: '$0' max_duration { seconds: 3600 nanos: 1 }", "max_duration",
       "1h0"},
      {"INVALID_DURATION", kInvalid, "mmud.v1.VmService/PauseVcpus",
       "vm: '$0' max_duration {}", "max_duration", "is 0"},
      {"INVALID_WINDOW", kInvalid, "mmud.v1.DirtyLogService/GetDirtyRate",
       "vm: '$0' windows { nanos: 1000000 }", "windows[0]", "1ms", Log},
      {"INVALID_AGING_MODE", kInvalid, "mmud.v1.AgingService/AgeRange",
       "vm: '$0'", "mode", "0"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 1073741824 size_bytes: 4096 "
       "backing: 99 }",
       "memslot.backing", "99"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { entry_format: 9 } }", "vm.tdp.entry_format",
       "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { tdp { slot_zap: 9 } }", "vm.tdp.slot_zap", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { nested {} guest_paging { mode: 9 } }",
       "vm.guest_paging.mode", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.DebugService/ListPageTables",
       "vm: '$0' kind: 9", "kind", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' encoding: 7", "encoding", "7", Log},
      {"INVALID_ENUM_VALUE", kInvalid,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { trace { trace_name: 'sort.trace' placement: 9 } }",
       "workload.trace.placement", "9"},
      {"MEMSLOT_IMMUTABLE", kPrecondition, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { size_bytes: 8192 }", "memslot.size_bytes", "slot 0"},
      {"INVALID_REQUEST", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other'", "vm", "vm"},
      {"INVALID_REQUEST", kInvalid, "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0'", "workload", "is required"},
      {"VM_NOT_FOUND", kNotFound, "mmud.v1.VmService/GetVm",
       "name: 'vms/nobody'", "", "\"vms/nobody\""},
      {"VM_NOT_FOUND", kNotFound, "mmud.lab.v1.WorkloadService/ListWorkloads",
       "vm: 'vms/nobody'", "", "\"vms/nobody\""},
      {"WORKLOAD_NOT_FOUND", kNotFound,
       "mmud.lab.v1.WorkloadService/GetWorkload",
       "name: '$0/workloads/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b'", "", kUuid},
      {"WORKLOAD_NOT_FOUND", kNotFound,
       "mmud.lab.v1.WorkloadService/StopWorkload",
       "name: 'vms/nobody/workloads/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b'", "",
       kUuid},
      {"MEMSLOT_NOT_FOUND", kNotFound, "mmud.v1.VmService/DeleteMemslot",
       "name: '$0/memslots/7'", "", "memslots/7\""},
      {"MEMSLOT_NOT_FOUND", kNotFound, "mmud.v1.VmService/GetMemslot",
       "name: '$0/memslots/7'", "", "memslots/7\""},
      {"OPERATION_NOT_FOUND", kNotFound,
       "google.longrunning.Operations/CancelOperation",
       "name: 'operations/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b'", "", kUuid},
      {"TRACE_NOT_FOUND", kNotFound,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { trace { trace_name: 'no.trace' } }", "",
       "\"no.trace\""},
      {"TRACE_NOT_FOUND", kNotFound,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { trace { trace_name: '../traces/sort.trace' } }", "",
       "'..'"},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 9", "epoch", "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' acknowledged_epoch: "
       "9",
       "acknowledged_epoch", "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 9", "epoch",
       "9", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: -1", "epoch", "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' acknowledged_epoch: "
       "-1",
       "acknowledged_epoch", "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.DirtyLogService/AcknowledgePages",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: -1", "epoch",
       "-1", SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { log_id: '$1' epoch: -1 }", "in_flight.epoch", "-1",
       SealOnce},
      {"EPOCH_UNKNOWN", kNotFound, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { log_id: '$1' epoch: 9 }", "in_flight.epoch", "9",
       SealOnce},
      {"INVALID_LOG_ID", kInvalid, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { epoch: 1 }", "in_flight.log_id", "empty"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' in_flight { "
       "log_id: '0123456789abcdef0123456789abcdef' epoch: 1 }",
       "", "log"},
      {"INVALID_RANGE", kInvalid, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0'", "extents", "in_flight"},
      {"GPA_OUT_OF_RANGE", grpc::StatusCode::OUT_OF_RANGE,
       "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' extents { gpa_bytes: 1073741824 size_bytes: 4096 }",
       "extents[0]", "1073741824"},
      {"VM_EXISTS", kExists, "mmud.v1.VmService/CreateVm",
       "vm_id: 'case' vm { tdp {} }", "", "\"vms/case\""},
      {"DIRTY_LOG_ACTIVE", kExists, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "split: DIRTY_LOG_SPLIT_NONE",
       "vm", "settings", Log},
      {"DIRTY_LOG_ACTIVE", kPrecondition,
       "mmud.v1.SplitService/RecoverHugePages", "vm: '$0'", "", "slot 0", Log},
      {"REQUEST_ID_REUSED", kExists, "mmud.v1.VmService/ResumeVcpus",
       "vm: '$0' request_id: '3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b'", "", kUuid,
       UseRequestId},
      {"OPERATION_RUNNING", kPrecondition, "mmud.v1.VmService/DeleteVm",
       "name: '$0'", "", "\"vms/case\" runs a workload", RunWorkload},
      {"OPERATION_RUNNING", kPrecondition, "mmud.v1.VmService/DeleteVm",
       "name: '$0'", "", "operations work on \"vms/case\"", RunSplit},
      {"OPERATION_RUNNING", kPrecondition,
       "google.longrunning.Operations/DeleteOperation", "name: '$1'", "",
       "operations/", RunSplit},
      {"OPERATION_DONE", kPrecondition, "mmud.v1.SplitService/PauseSplit",
       "operation: '$1'", "", "operations/", FinishSplit},
      {"WORKLOAD_RUNNING", kPrecondition,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { pattern { uniform {} } }", "", "vms/case",
       RunWorkload},
      {"WORKLOAD_NOT_RUNNING", kPrecondition,
       "mmud.lab.v1.WorkloadService/StopWorkload", "name: '$1'", "",
       "vms/case/workloads/", EndWorkload},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/GetDirtyLog",
       "vm: '$0' ", "", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' ", "", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/StopDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "vm", "log"},
      {"DIRTY_LOG_OFF", kPrecondition, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ", "vm", "log"},
      {"UNDELIVERED_PAGES", kPrecondition,
       "mmud.v1.DirtyLogService/StopDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' ",
       "discard_undelivered", "8 sealed", SealOnce},
      {"UNDELIVERED_PAGES", kPrecondition,
       "mmud.v1.DirtyLogService/StopDirtyLog", "vm: '$0' force: true",
       "discard_undelivered", "5 open", WriteOnly},
      {"UNDELIVERED_PAGES", kPrecondition, "mmud.v1.VmService/DeleteMemslot",
       "name: '$0/memslots/0'", "discard_undelivered", "5 open", WriteOnly},
      {"UNDELIVERED_PAGES", kPrecondition, "mmud.v1.VmService/DeleteVm",
       "name: '$0'", "force", "5 open", WriteOnly},
      {"LOG_OWNED", kPrecondition, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'a token of somebody else'", "owner_token",
       "an integration test", Log},
      {"LOG_OWNED", kPrecondition, "mmud.v1.DirtyLogService/AcquireDirtyLog",
       "vm: '$0' owner: 'me' owner_token: 'a token of somebody else'",
       "owner_token", "force", Log},
      {"LOG_FENCED", kPrecondition, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 1 pages { "
       "extents {} }",
       "owner_token", "the next", TakeOver},
      {"LOG_FENCED", kPrecondition, "mmud.v1.DirtyLogService/AcquireDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' "
       "force: true",
       "owner_token", "the next", TakeOver},
      {"NO_CONTENTS", kPrecondition, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' extents { gpa_bytes: 34359738368 size_bytes: 4096 }", "",
       "metadata-only"},
      {"NO_SHADOW_PAGES", kPrecondition, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' shadow_page_limit: 1000 } "
       "update_mask { paths: 'shadow_page_limit' }",
       "", "only the TDP MMU"},
      {"SPLIT_RUNNING", kAborted, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0'", "", "vms/case", RunSplit},
      {"EPOCH_MISMATCH", kAborted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 5 pages { "
       "extents {} }",
       "epoch", "5", SealOnce},
      {"EPOCH_SUPERSEDED", kAborted, "mmud.v1.DirtyLogService/ReadDirtyPages",
       "vm: '$0' log_id: '$1' epoch: 1", "epoch", "1", SealTwice},
      {"LOG_CHANGED", kAborted, "mmud.v1.DirtyLogService/SealDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' log_id: "
       "'00000000000000000000000000000001'",
       "log_id", "begin anew", Log},
      {"DIRTY_LOG_STARTING", kAborted, "mmud.v1.DirtyLogService/StartDirtyLog",
       "vm: '$0' owner: 'a test' owner_token: 'integration test\\'s token' ",
       "", "vms/case", StartSlowly},
      {"ETAG_MISMATCH", kAborted, "mmud.v1.VmService/DeleteVm",
       "name: '$0' etag: 'old'", "", "\"old\""},
      {"ETAG_MISMATCH", kAborted, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' } update_mask { paths: 'labels' } etag: 'old'", "",
       "\"old\""},
      {"ETAG_MISMATCH", kAborted, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { size_bytes: 8388608 } etag: 'old'", "", "\"old\""},
      {"ETAG_MISMATCH", kAborted, "mmud.v1.VmService/DeleteMemslot",
       "name: '$0/memslots/0' etag: 'old'", "", "\"old\""},
      {"RESOURCE_EXHAUSTED_MEMORY", kExhausted, "mmud.v1.VmService/SetMemslot",
       "vm: '$0' memslot { slot: 1 gpa_bytes: 8796093022208 "
       "size_bytes: 4398046511104 }",
       "memslot.size_bytes", "4398046511104"},
      {"EPOCH_MISMATCH", kAborted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: -1 pages { "
       "extents {} }",
       "epoch", "-1", SealOnce},
      {"LIMIT_EXCEEDED", kExhausted, "mmud.v1.VmService/CreateVm",
       "vm_id: 'third' vm { tdp {} }", "", "2 VMs",
       [](const TestClient& client, const Guest&) {
         const Guest second(client, "second", {});
         return std::string();
       }},
      {"LIMIT_EXCEEDED", kExhausted, "mmud.v1.DirtyLogService/ClearDirtyLog",
       "vm: '$0' owner_token: 'integration test\\'s token' epoch: 5 pages { "
       "size_bytes: 262144 extents { extents { size_bytes: 262144 } } }",
       "epoch", "acknowledge", FillFlights},
      {"INSUFFICIENT_HISTORY", kPrecondition,
       "mmud.v1.DirtyLogService/GetDirtyRate",
       "vm: '$0' windows { seconds: 300 }", "", "5m", Log},
      {"TRACE_CORRUPT", grpc::StatusCode::DATA_LOSS,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { trace { trace_name: 'bad.trace' } }", "",
       "bad.trace"},
  };
  return *kCases;
}

// A daemon with little address space, a bad trace and one VM per case.
class ErrorsTest : public ::testing::Test {
 protected:
  ErrorsTest() {
    WriteFile(traces_.File("bad.trace"), "not a trace");
    WriteFile(traces_.File("sort.trace"),
              ReadFile(TracesDirectory() + "/sort.trace"));
    daemon_ = std::make_unique<Daemon>(
        std::vector<std::string>{"--max-vms=2", "--max-guest-memory-bytes=0",
                                 "--trace-dir=" + traces_.path()});
    // Anonymous memory is not committed: only a limit makes it run out.
    const std::string out = traces_.File("prlimit");
    const ProgramResult limited = RunProgram(
        {"/usr/bin/prlimit", absl::StrCat("--pid=", daemon_->process().pid()),
         absl::StrCat("--as=", int64_t{1} << 41)},
        out);
    EXPECT_EQ(limited.exit_code, 0) << limited.err;
  }

  const TestClient& client() const { return daemon_->client(); }

  // A VM with 2 MiB mappings of one word each, and memory without contents.
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

  // Ends what works and deletes all VMs.
  void CleanUp() const {
    google::longrunning::ListOperationsRequest list;
    list.set_page_size(1000);  // many are done by now
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
    // What passes with time says when to try again.
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
  for (const Case& wrong : Cases()) {
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

  // Reasons with which a workload or an operation ends, and those of other
  // daemons.
  const std::unique_ptr<Guest> guest = NewGuest();
  lab::v1::Workload workload;
  workload.mutable_trace()->set_trace_name("sort.trace");
  workload.mutable_trace()->mutable_extent()->set_size_bytes(16 * kPage);
  const lab::v1::Workload too_large = guest->RunToEnd(workload);
  EXPECT_EQ(too_large.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(FactsOf(too_large.error()).domain, "mmud");
  seen.insert(FactsOf(too_large.error()).reason);

  // Each access lies in 2 MiB of its own, and so needs a table of its own.
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

  // More vCPUs than shadow pages: each runs on a root of its own.
  Daemon roomy;
  roomy.client().CallText(
      "mmud.v1.VmService/CreateVm",
      "vm_id: 'many' vm { vcpu_count: 100 shadow {} shadow_page_limit: 64 "
      "memslots { size_bytes: 268435456 } }");
  const Guest many(roomy.client(), "vms/many");
  const lab::v1::Workload no_roots = many.AwaitEnd(many.StartRandomWrites(1));
  EXPECT_EQ(no_roots.error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  seen.insert(FactsOf(no_roots.error()).reason);

  // A guest's kernel that was stopped while it waited for room in its ring.
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

  // A stream that waits for its peer when its VM is deleted, and when the
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
