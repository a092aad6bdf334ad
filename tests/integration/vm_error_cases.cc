#include "tests/integration/vm_error_cases.h"

#include <cstdint>

#include "mmud/v1/split_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"

namespace mmud::integration {
namespace {

constexpr char kUuid[] = "3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b";

// These return the name of the workload.
std::string RunWorkload(const TestClient&, const Guest& guest) {
  return guest.StartRandomWrites(1);
}

std::string EndWorkload(const TestClient&, const Guest& guest) {
  guest.WritePages(1);
  return guest.LastWorkload().name();
}

std::string FinishSplit(const TestClient& client, const Guest& guest) {
  const std::string name = guest.StartSplit(v1::SplitHugePagesRequest());
  client.WaitDone(name);
  return name;
}

// Creates a VM on stage-2 tables and returns its name.
std::string MakeStage2Vm(const TestClient& client, int64_t granule_bytes) {
  v1::CreateVmRequest request;
  request.set_vm_id("arm");
  request.mutable_vm()->mutable_stage2()->set_granule_bytes(granule_bytes);
  return client.Must(&v1::VmService::Stub::CreateVm, request).vm().name();
}

std::string Make4KVm(const TestClient& client, const Guest&) {
  return MakeStage2Vm(client, 4096);
}

std::string Make16KVm(const TestClient& client, const Guest&) {
  return MakeStage2Vm(client, 16384);
}

std::string Make64KVm(const TestClient& client, const Guest&) {
  return MakeStage2Vm(client, 65536);
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

}  // namespace

std::string RunSplit(const TestClient&, const Guest& guest) {
  v1::SplitHugePagesRequest request;
  request.mutable_throttle()->mutable_min_pause()->set_seconds(10);
  return guest.StartSplit(request);
}

const std::vector<ErrorCase>& VmErrorCases() {
  static const auto* const kCases = new std::vector<ErrorCase>{
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
       "vm_id: 'other' vm { stage2 { granule_bytes: 8192 } }",
       "vm.stage2.granule_bytes", "is 8192"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { granule_bytes: -4096 } }",
       "vm.stage2.granule_bytes", "-4096"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { granule_bytes: 4294971392 } }",
       "vm.stage2.granule_bytes", "4294971392"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { ipa_bits: 31 } }", "vm.stage2.ipa_bits",
       "is 31"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { ipa_bits: 52 } }", "vm.stage2.ipa_bits",
       "FEAT_LPA"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { start_level: 3 } }",
       "vm.stage2.start_level", "is 3"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { bbm_level: 1 } }", "vm.stage2.bbm_level",
       "nT bit"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { bbm_level: 3 } }", "vm.stage2.bbm_level",
       "is 3"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { eager_split_chunk_bytes: 3145728 } }",
       "vm.stage2.eager_split_chunk_bytes", "is 3145728"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { eager_split_chunk_bytes: -1 } }",
       "vm.stage2.eager_split_chunk_bytes", "-1"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { hardware_dirty_state: FEATURE_ON } }",
       "vm.stage2.hardware_dirty_state", "Access flag"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { dirty_ring_entries: 1024 stage2 { "
       "hardware_access_flag: FEATURE_ON hardware_dirty_state: FEATURE_ON } }",
       "vm.stage2.hardware_dirty_state", "of 1024 entries"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { granule_bytes: 65536 "
       "eager_split_chunk_bytes: 2097152 } }",
       "vm.stage2.eager_split_chunk_bytes", "is 2097152"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 {} guest_paging {} }", "vm.guest_paging",
       "guest's tables"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 {} shadow_page_limit: 100 }",
       "vm.shadow_page_limit", "stage 2"},
      {"UNALIGNED", kInvalid, "mmud.v1.VmService/CreateVm",
       "vm_id: 'other' vm { stage2 { granule_bytes: 65536 } memslots { "
       "size_bytes: 4096 } }",
       "vm.memslots[0].size_bytes", "65536"},
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
      {"INVALID_MESSAGE_SIZE", kInvalid, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' extents { size_bytes: 4096 } max_message_bytes: 100",
       "max_message_bytes", "100"},
      {"INVALID_DURATION", kInvalid, "mmud.v1.VmService/PauseVcpus",
       "vm: '$0' max_duration { seconds: 3600 nanos: 1 }", "max_duration",
       "1h0"},
      {"INVALID_DURATION", kInvalid, "mmud.v1.VmService/PauseVcpus",
       "vm: '$0' max_duration {}", "max_duration", "is 0"},
      {"INVALID_AGING_MODE", kInvalid, "mmud.v1.AgingService/AgeRange",
       "vm: '$0'", "mode", "0"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.AgingService/AgeRange",
       "vm: '$0' mode: AGING_MODE_TEST lock_mode: 9", "lock_mode", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.AgingService/AgeRange",
       "vm: '$0' mode: AGING_MODE_TEST slow_mmus: 9", "slow_mmus", "9"},
      {"FAST_AGING_UNAVAILABLE", kPrecondition, "mmud.v1.AgingService/AgeRange",
       "vm: '$1' mode: AGING_MODE_TEST slow_mmus: SLOW_MMUS_REFUSE",
       "lock_mode", "the shadow MMU is in use",
       [](const TestClient& client, const Guest&) {
         client.CallText("mmud.v1.VmService/CreateVm",
                         "vm_id: 'other' vm { tdp_shadow {} memslots { "
                         "size_bytes: 4096 } }");
         return std::string("vms/other");
       }},
      {"NO_GENERATION", kPrecondition, "mmud.v1.AgingService/GetWorkingSet",
       "vm: '$0'", "", "CreateGeneration"},
      {"GENERATION_RUNNING", kAborted, "mmud.v1.AgingService/CreateGeneration",
       "vm: '$1'", "", "wait for it",
       [](const TestClient& client, const Guest&) {
         client.CallText("mmud.v1.VmService/CreateVm",
                         "vm_id: 'vast' vm { tdp {} memslots { size_bytes: "
                         "1099511627776 backing: MEMORY_BACKING_METADATA_ONLY "
                         "} }");
         client.CallText("mmud.v1.AgingService/CreateGeneration",
                         "vm: 'vms/vast' cpu_percent: 1");
         return std::string("vms/vast");
       }},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.AgingService/CreateGeneration",
       "vm: '$0' cpu_percent: 101", "cpu_percent", "101"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.AgingService/CreateGeneration",
       "vm: '$0' scope: 9", "scope", "9"},
      {"INVALID_ENUM_VALUE", kInvalid, "mmud.v1.AgingService/ListHotRanges",
       "vm: '$0' order: 9", "order", "9"},
      {"INVALID_PAGE_SIZE", kInvalid, "mmud.v1.AgingService/ListHotRanges",
       "vm: '$0' page_size: -1", "page_size", "-1"},
      {"INVALID_PAGE_TOKEN", kInvalid, "mmud.v1.AgingService/ListHotRanges",
       "vm: '$0' page_token: 'x'", "page_token", "x"},
      {"INVALID_WINDOW", kInvalid, "mmud.v1.AgingService/GetWorkingSet",
       "vm: '$0' windows { seconds: 60 } windows { seconds: -1 }", "windows[1]",
       "-1"},
      {"INVALID_THROTTLE", kInvalid, "mmud.v1.AgingService/UpdateAger",
       "vm: '$0' settings { cpu_percent: 101 }", "settings.cpu_percent", "101"},
      {"INVALID_DURATION", kInvalid, "mmud.v1.AgingService/UpdateAger",
       "vm: '$0' settings { min_interval { seconds: 3601 } }",
       "settings.min_interval", "1h1s"},
      {"INVALID_REQUEST", kInvalid, "mmud.v1.AgingService/UpdateAger",
       "vm: '$0'", "settings", "is required"},
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
      {"NO_CONTENTS", kPrecondition, "mmud.v1.GuestMemoryService/ReadPages",
       "vm: '$0' extents { gpa_bytes: 34359738368 size_bytes: 4096 }", "",
       "metadata-only"},
      {"NO_SHADOW_PAGES", kPrecondition, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' shadow_page_limit: 1000 } "
       "update_mask { paths: 'shadow_page_limit' }",
       "", "no shadow pages"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' stage2 { eager_split_chunk_bytes: 4096 } } "
       "update_mask { paths: 'stage2.eager_split_chunk_bytes' }",
       "vm.stage2.eager_split_chunk_bytes", "stage-2"},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$1' stage2 { eager_split_chunk_bytes: -1 } } "
       "update_mask { paths: 'stage2.eager_split_chunk_bytes' }",
       "vm.stage2.eager_split_chunk_bytes",
       "is -1; it must be 0, which splits nothing ahead, or the size of a "
       "page or block of the granule",
       Make4KVm},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$1' stage2 { eager_split_chunk_bytes: 3145728 } } "
       "update_mask { paths: 'stage2.eager_split_chunk_bytes' }",
       "vm.stage2.eager_split_chunk_bytes",
       "is 3145728; with granules of 4 KiB it must be 0, which splits nothing "
       "ahead, or the size of a page or block, 4096, 2097152, 1073741824",
       Make4KVm},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$1' stage2 { eager_split_chunk_bytes: 4096 } } "
       "update_mask { paths: 'stage2.eager_split_chunk_bytes' }",
       "vm.stage2.eager_split_chunk_bytes",
       "is 4096; with granules of 16 KiB it must be 0, which splits nothing "
       "ahead, or the size of a page or block, 16384, 33554432",
       Make16KVm},
      {"INVALID_MMU_OPTION", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$1' stage2 { eager_split_chunk_bytes: 2097152 } } "
       "update_mask { paths: 'stage2.eager_split_chunk_bytes' }",
       "vm.stage2.eager_split_chunk_bytes",
       "is 2097152; with granules of 64 KiB it must be 0, which splits nothing "
       "ahead, or the size of a page or block, 65536, 536870912",
       Make64KVm},
      {"INVALID_UPDATE_MASK", kInvalid, "mmud.v1.VmService/UpdateVm",
       "vm { name: '$0' shadow_page_limit: 100 } update_mask { "
       "paths: 'shadow_page_limit' paths: 'stage2.eager_split_chunk_bytes' }",
       "update_mask", "one at most"},
      {"SPLIT_RUNNING", kAborted, "mmud.v1.SplitService/SplitHugePages",
       "vm: '$0'", "", "vms/case", RunSplit},
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
      {"LIMIT_EXCEEDED", kExhausted, "mmud.v1.VmService/CreateVm",
       "vm_id: 'third' vm { tdp {} }", "", "2 VMs",
       [](const TestClient& client, const Guest&) {
         const Guest second(client, "second", {});
         return std::string();
       }},
      {"TRACE_CORRUPT", grpc::StatusCode::DATA_LOSS,
       "mmud.lab.v1.WorkloadService/StartWorkload",
       "vm: '$0' workload { trace { trace_name: 'bad.trace' } }", "",
       "bad.trace"},
  };
  return *kCases;
}

}  // namespace mmud::integration
