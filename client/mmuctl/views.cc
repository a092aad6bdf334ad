#include "client/mmuctl/views.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/time_conversion.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

std::string ViewTime(const google::protobuf::Duration& duration) {
  return FormatTime(FromProto(duration));
}

std::string ViewSkips(const v1::SplitSkips& skips) {
  return absl::StrCat(skips.no_memory_count(), " no memory, ",
                      skips.raced_count(), " raced, ", skips.limit_count(),
                      " limit");
}

std::string ViewThrottled(const v1::ThrottledTime& time) {
  return absl::StrCat(
      "rate ", ViewTime(time.rate()), ", lock hold ",
      ViewTime(time.lock_hold()), ", flush ", ViewTime(time.flush()),
      ", stall ", ViewTime(time.stall()), ", pause ", ViewTime(time.pause()));
}

// Shows the fields that TdpMmu and ShadowMmu have in common.
template <typename Mmu>
std::string ViewMmu(const v1::Vm& vm, const std::string& format,
                    const Mmu& options) {
  return absl::StrCat(
      MmuName(vm), ", ", format, ", ", options.page_table_levels(),
      " levels, up to ", ViewPageSize(options.max_page_size()),
      options.mmio_caching() == v1::FEATURE_OFF ? ", no mmio caching" : "",
      options.slot_zap() == v1::SLOT_ZAP_SLOT ? ", slots zapped by themselves"
                                              : "");
}

std::string ViewTdp(const v1::Vm& vm, const v1::TdpMmu& tdp) {
  return absl::StrCat(
      ViewMmu(
          vm,
          ShortName(v1::EntryFormat_Name(tdp.entry_format()), "ENTRY_FORMAT_"),
          tdp),
      tdp.accessed_dirty_bits() == v1::FEATURE_OFF ? ", no A/D bits" : "",
      tdp.pml() == v1::FEATURE_ON ? ", pml" : "");
}

std::string ViewStage2(const v1::Stage2Mmu& stage2) {
  return absl::StrCat(
      "stage2, granule ", FormatBytes(stage2.granule_bytes()), ", ",
      stage2.ipa_bits(), " address bits",
      stage2.has_start_level()
          ? absl::StrCat(" from level ", stage2.start_level())
          : "",
      ", BBM level ", stage2.bbm_level(), ", up to ",
      ViewPageSize(stage2.max_page_size()),
      stage2.eager_split_chunk_bytes() != 0
          ? absl::StrCat(", split by ",
                         FormatBytes(stage2.eager_split_chunk_bytes()))
          : ", split by faults",
      stage2.hardware_access_flag() == v1::FEATURE_ON ? ", hardware Access flag"
                                                      : "",
      stage2.hardware_dirty_state() == v1::FEATURE_ON ? ", hardware dirty state"
                                                      : "",
      stage2.tlbi_range() == v1::FEATURE_ON ? ", TLBI by range" : "");
}

// "1,024 x 4K, 2 x 2M, 0 x 1G". Stage-2 tables have the sizes of their granule.
std::string ViewMapped(const v1::Vm& vm) {
  std::vector<std::string> sizes = {"4K", "2M", "1G"};
  if (vm.has_stage2()) {
    sizes.clear();
    for (const int64_t bytes : vm.stage2().supported_block_bytes()) {
      sizes.push_back(FormatBytes(bytes));
    }
  }
  const std::array<int64_t, 3> counts = {vm.mapped_pages().pages_4k_count(),
                                         vm.mapped_pages().pages_2m_count(),
                                         vm.mapped_pages().pages_1g_count()};
  std::vector<std::string> parts;
  for (size_t i = 0; i < std::min(sizes.size(), counts.size()); ++i) {
    parts.push_back(absl::StrCat(FormatCount(counts[i]), " x ", sizes[i]));
  }
  return absl::StrJoin(parts, ", ");
}

std::string ViewGuestPaging(const v1::GuestPaging& paging) {
  return absl::StrCat(
      ShortName(v1::GuestPagingMode_Name(paging.mode()), "GUEST_PAGING_MODE_"),
      paging.large_pages() == v1::FEATURE_ON ? ", large pages" : "",
      paging.process_count() > 1
          ? absl::StrCat(", ", paging.process_count(), " processes per vCPU")
          : "",
      paging.accessed_dirty_bits() == v1::FEATURE_OFF ? ", no A/D bits" : "");
}

void AddMmu(const v1::Vm& vm, KeyValues* values) {
  switch (vm.mmu_case()) {
    case v1::Vm::kTdpShadow:
      values->Add("mmu", ViewTdp(vm, vm.tdp_shadow()));
      break;
    case v1::Vm::kShadow:
      values->Add("mmu", ViewMmu(vm, "npt", vm.shadow()));
      break;
    case v1::Vm::kNested:
      values->Add("mmu", ViewTdp(vm, vm.nested()));
      break;
    case v1::Vm::kStage2:
      values->Add("mmu", ViewStage2(vm.stage2()));
      break;
    default:
      values->Add("mmu", ViewTdp(vm, vm.tdp()));
  }
  if (vm.has_guest_paging()) {
    values->Add(vm.has_nested() ? "L1's tables" : "guest's tables",
                ViewGuestPaging(vm.guest_paging()));
  }
  if (vm.shadow_page_limit() > 0) {
    values->Add("shadow pages",
                absl::StrCat("up to ", FormatCount(vm.shadow_page_limit())));
  }
}

// "a=b, c=d", in the order of the keys.
std::string ViewLabels(const v1::Vm& vm) {
  const std::map<std::string, std::string> sorted(vm.labels().begin(),
                                                  vm.labels().end());
  return absl::StrJoin(sorted, ", ", absl::PairFormatter("="));
}

// Adds the start time and the running time of the operation's metadata.
template <typename Metadata>
void AddTimes(const Metadata& metadata, OperationView* view) {
  if (metadata.has_start_time()) {
    view->start_time = FromProto(metadata.start_time());
  }
  if (metadata.has_running_time()) {
    view->running_time = FromProto(metadata.running_time());
  }
}

}  // namespace

std::string ShortName(absl::string_view name, absl::string_view prefix) {
  absl::ConsumePrefix(&name, prefix);
  return absl::AsciiStrToLower(name);
}

std::string ViewPageSize(v1::PageSize size) {
  return absl::AsciiStrToUpper(
      ShortName(v1::PageSize_Name(size), "PAGE_SIZE_"));
}

std::string ViewUndelivered(const v1::UndeliveredPages& pages) {
  return absl::StrCat(FormatCount(pages.open_page_count()), " open, ",
                      FormatCount(pages.sealed_page_count()), " sealed and ",
                      FormatCount(pages.in_flight_page_count()),
                      " pages in flight");
}

std::string ViewCost(const v1::MmuCost& cost) {
  return absl::StrCat(ViewTime(cost.wall_time()), ", lock wait ",
                      ViewTime(cost.lock_wait()), ", max hold ",
                      ViewTime(cost.max_lock_hold()), ", ",
                      FormatCount(cost.tlb_flush_count()), " flushes, ",
                      FormatCount(cost.vcpus_kicked_count()), " kicks, ",
                      FormatCount(cost.sptes_visited_count()), " SPTEs");
}

std::string ViewSplits(const v1::SplitCounts& splits) {
  return absl::StrCat(FormatCount(splits.split_2m_count()), " of 2M, ",
                      FormatCount(splits.split_1g_count()), " of 1G");
}

std::string ViewMemslots(
    const google::protobuf::RepeatedPtrField<v1::Memslot>& memslots) {
  Table table({{"SLOT", Align::kRight},
               {"GPA", Align::kRight},
               {"SIZE", Align::kRight},
               {"PAGE"},
               {"BACKING"},
               {"ACCESS"},
               {"DIRTY LOG"}});
  for (const v1::Memslot& slot : memslots) {
    std::string log = "off";
    if (slot.dirty_log().state() == v1::DIRTY_LOG_STATE_ACTIVE) {
      log = absl::StrCat(
          "on, ", FormatCount(slot.dirty_log().sealed_page_count()),
          " sealed, ", FormatCount(slot.dirty_log().in_flight_page_count()),
          " in flight");
    }
    table.AddRow(
        {absl::StrCat(slot.slot()), FormatGpa(slot.gpa_bytes()),
         FormatBytes(slot.size_bytes()), ViewPageSize(slot.host_page_size()),
         ShortName(v1::MemoryBacking_Name(slot.backing()), "MEMORY_BACKING_"),
         slot.readonly() ? "read-only" : "read-write", log});
  }
  return table.ToString();
}

std::string MmuName(const v1::Vm& vm) {
  switch (vm.mmu_case()) {
    case v1::Vm::kTdpShadow:
      return "tdp-shadow";
    case v1::Vm::kShadow:
      return "shadow";
    case v1::Vm::kNested:
      return "nested";
    case v1::Vm::kStage2:
      return "stage2";
    default:
      return "tdp";
  }
}

std::string ViewPause(const v1::VcpuPause& pause) {
  return absl::StrCat("paused since ", FormatWallTime(FromProto(pause.since())),
                      ", until ",
                      FormatWallTime(FromProto(pause.expire_time())));
}

std::string ViewVm(const v1::Vm& vm) {
  KeyValues values;
  values.Add("name", vm.name());
  values.Add("uid", vm.uid());
  values.Add("state", ShortName(v1::VmState_Name(vm.state()), "VM_STATE_"));
  values.Add("vCPUs",
             absl::StrCat(vm.vcpu_count(), ", ",
                          vm.has_pause()
                              ? ViewPause(vm.pause())
                              : ShortName(v1::VcpuState_Name(vm.vcpu_state()),
                                          "VCPU_STATE_")));
  for (const v1::VmCondition& condition : vm.conditions()) {
    values.Add(
        "condition",
        absl::StrCat(ShortName(v1::VmConditionType_Name(condition.type()),
                               "VM_CONDITION_TYPE_"),
                     " since ", FormatWallTime(FromProto(condition.since())),
                     ": ", condition.message()));
  }
  values.Add("memory", FormatBytes(vm.memory_size_bytes()));
  values.Add("mapped", ViewMapped(vm));
  AddMmu(vm, &values);
  if (vm.dirty_ring_entries() > 0) {
    values.Add("dirty rings", absl::StrCat(FormatCount(vm.dirty_ring_entries()),
                                           " entries per vCPU"));
  }
  values.Add("created", FormatWallTime(FromProto(vm.create_time())));
  values.Add("etag", vm.etag());
  if (!vm.labels().empty()) values.Add("labels", ViewLabels(vm));
  if (vm.memslots().empty()) return values.ToString();
  return absl::StrCat(values.ToString(), "\n", ViewMemslots(vm.memslots()));
}

std::optional<double> ShareOf(double done, double total) {
  if (total <= 0) return std::nullopt;
  // A guest with a kernel makes more accesses than the program that runs in it.
  return std::min(done / total, 1.0);
}

OperationView ViewOperation(const google::longrunning::Operation& operation) {
  OperationView view;
  view.state = !operation.done() ? "running"
               : operation.has_error()
                   ? absl::StrCat("failed: ", operation.error().message())
                   : "done";
  if (v1::SplitMetadata split; operation.metadata().UnpackTo(&split)) {
    view.kind = "split";
    view.vm = split.vm();
    AddTimes(split, &view);
    view.share = ShareOf(static_cast<double>(split.done_bytes()),
                         static_cast<double>(split.total_bytes()));
    view.words = absl::StrCat(FormatBytes(split.done_bytes()), " of ",
                              FormatBytes(split.total_bytes()), ", split ",
                              ViewSplits(split.splits()));
    if (split.has_remaining_time() && !operation.done()) {
      absl::StrAppend(&view.words, ", ", ViewTime(split.remaining_time()),
                      " left");
    }
    if (!operation.done()) {
      view.state =
          ShortName(v1::SplitState_Name(split.state()), "SPLIT_STATE_");
    }
  } else if (v1::RecoverMetadata recover;
             operation.metadata().UnpackTo(&recover)) {
    view.kind = "recover";
    view.vm = recover.vm();
    AddTimes(recover, &view);
    view.share = ShareOf(static_cast<double>(recover.done_bytes()),
                         static_cast<double>(recover.total_bytes()));
    view.words =
        absl::StrCat(FormatBytes(recover.done_bytes()), " of ",
                     FormatBytes(recover.total_bytes()), ", made ",
                     FormatCount(recover.recovered_2m_count()), " of 2M, ",
                     FormatCount(recover.recovered_1g_count()), " of 1G");
  } else if (v1::StartDirtyLogMetadata log;
             operation.metadata().UnpackTo(&log)) {
    view.kind = "dirty-log";
    view.vm = log.vm();
    AddTimes(log, &view);
    view.share = ShareOf(static_cast<double>(log.done_bytes()),
                         static_cast<double>(log.total_bytes()));
    view.words =
        absl::StrCat("for ", log.owner(), ", split ", ViewSplits(log.splits()));
    if (!operation.done()) {
      view.state = ShortName(v1::StartDirtyLogState_Name(log.state()),
                             "START_DIRTY_LOG_STATE_");
    }
  } else if (v1::GenerationMetadata scan;
             operation.metadata().UnpackTo(&scan)) {
    view.kind = "generation";
    view.vm = scan.vm();
    AddTimes(scan, &view);
    view.share = ShareOf(static_cast<double>(scan.done_bytes()),
                         static_cast<double>(scan.total_bytes()));
    view.words = absl::StrCat(FormatBytes(scan.done_bytes()), " of ",
                              FormatBytes(scan.total_bytes()), ", ",
                              FormatCount(scan.generation().young_page_count()),
                              " pages young");
  }
  return view;
}

std::string ViewOperationDetails(
    const google::longrunning::Operation& operation) {
  const OperationView view = ViewOperation(operation);
  KeyValues values;
  values.Add("name", operation.name());
  values.Add("kind", view.kind);
  values.Add("VM", view.vm);
  values.Add("state", view.state);
  if (view.start_time) values.Add("started", FormatWallTime(*view.start_time));
  if (view.running_time) {
    values.Add(operation.done() ? "took" : "running for",
               FormatTime(*view.running_time));
  }
  values.Add("progress", view.share ? absl::StrCat(FormatShare(*view.share, 1),
                                                   ", ", view.words)
                                    : view.words);
  if (v1::SplitMetadata split; operation.metadata().UnpackTo(&split)) {
    values.Add("split", ViewSplits(split.splits()));
    values.Add("skipped", ViewSkips(split.skips()));
    values.Add("throttled", ViewThrottled(split.throttled()));
    values.Add("cost", ViewCost(split.cost()));
    values.Add("etag", split.etag());
  } else if (v1::RecoverMetadata recover;
             operation.metadata().UnpackTo(&recover)) {
    values.Add("throttled", ViewThrottled(recover.throttled()));
    values.Add("cost", ViewCost(recover.cost()));
  } else if (v1::StartDirtyLogMetadata log;
             operation.metadata().UnpackTo(&log)) {
    values.Add("cost", ViewCost(log.cost()));
  } else if (v1::GenerationMetadata scan;
             operation.metadata().UnpackTo(&scan)) {
    values.Add("generation", absl::StrCat(scan.generation().sequence()));
    values.Add("CPU time", ViewTime(scan.cpu_time()));
    values.Add("cost", ViewCost(scan.cost()));
  }
  return values.ToString();
}

}  // namespace mmud::client
