#include "server/convert/vm_convert.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/vm/core/vm_config.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/base/resource_names.h"
#include "server/control/shown_vm.h"
#include "server/control/vcpu_pause.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_convert.h"
#include "server/convert/mmu_convert.h"
#include "server/convert/vm_conditions.h"

namespace mmud {
namespace {

absl::Status BadOption(const std::string& field, absl::string_view message) {
  return InvalidField(mmu::Reason::kInvalidMmuOption, field, message);
}

absl::StatusOr<mmu::BackingKind> ToBacking(v1::MemoryBacking backing,
                                           const std::string& field) {
  switch (backing) {
    case v1::MEMORY_BACKING_UNSPECIFIED:
    case v1::MEMORY_BACKING_ANONYMOUS:
      return mmu::BackingKind::kAnonymous;
    case v1::MEMORY_BACKING_MEMFD:
      return mmu::BackingKind::kMemfd;
    case v1::MEMORY_BACKING_METADATA_ONLY:
      return mmu::BackingKind::kMetadataOnly;
    default:
      return InvalidField(mmu::Reason::kInvalidEnumValue, field,
                          absl::StrCat(field, " is ", static_cast<int>(backing),
                                       "; it must be ANONYMOUS, MEMFD or "
                                       "METADATA_ONLY"));
  }
}

v1::MemoryBacking ToProto(mmu::BackingKind backing) {
  switch (backing) {
    case mmu::BackingKind::kAnonymous:
      return v1::MEMORY_BACKING_ANONYMOUS;
    case mmu::BackingKind::kMemfd:
      return v1::MEMORY_BACKING_MEMFD;
    case mmu::BackingKind::kMetadataOnly:
      return v1::MEMORY_BACKING_METADATA_ONLY;
  }
  return v1::MEMORY_BACKING_UNSPECIFIED;
}

absl::optional<mmu::SlotLogView> LogOf(const ShownVm& vm, uint32_t slot) {
  const auto log = vm.slot_logs.find(slot);
  if (log == vm.slot_logs.end()) return absl::nullopt;
  return log->second;
}

}  // namespace

absl::StatusOr<mmu::VmConfig> ToVmConfig(const v1::Vm& proto,
                                         absl::string_view vm_name,
                                         absl::string_view field) {
  mmu::VmConfig config;
  if (absl::Status status = ApplyMmu(proto, field, &config); !status.ok()) {
    return status;
  }
  if (proto.vcpu_count() != 0) {
    config.vcpu_count = proto.vcpu_count();
  }
  // mmu_core checks the other rules.
  if (proto.dirty_ring_entries() < 0) {
    return BadOption(
        absl::StrCat(field, ".dirty_ring_entries"),
        absl::StrCat("dirty_ring_entries is ", proto.dirty_ring_entries(),
                     "; it must not be negative"));
  }
  config.dirty_ring_entries = static_cast<uint32_t>(proto.dirty_ring_entries());
  if (proto.memslots_size() > static_cast<int>(kMaxSlot) + 1) {
    return LimitExceeded(
        "max_memslots_per_vm",
        absl::StrCat("a VM may have ", kMaxSlot + 1, " memslots, not ",
                     proto.memslots_size()));
  }
  for (int i = 0; i < proto.memslots_size(); ++i) {
    absl::StatusOr<mmu::MemslotConfig> slot = ToMemslotConfig(
        proto.memslots(i), vm_name, absl::StrCat(field, ".memslots[", i, "]"));
    if (!slot.ok()) return slot.status();
    config.memslots.push_back(*slot);
  }
  return config;
}

absl::StatusOr<mmu::MemslotConfig> ToMemslotConfig(const v1::Memslot& proto,
                                                   absl::string_view vm_name,
                                                   absl::string_view field) {
  const auto path = [field](absl::string_view name) {
    return absl::StrCat(field, ".", name);
  };
  mmu::MemslotConfig config;
  absl::StatusOr<uint32_t> slot = ToSlot(proto.slot(), path("slot"));
  if (!slot.ok()) return slot.status();
  config.slot = *slot;
  if (!proto.name().empty() &&
      proto.name() != MakeMemslotName(vm_name, config.slot)) {
    return InvalidField(mmu::Reason::kInvalidName, path("name"),
                        absl::StrCat(path("name"), " is ", Quote(proto.name()),
                                     "; it must be empty or ",
                                     MakeMemslotName(vm_name, config.slot)));
  }
  v1::Extent extent;
  extent.set_gpa_bytes(proto.gpa_bytes());
  extent.set_size_bytes(proto.size_bytes());
  if (absl::StatusOr<mmu::GfnRange> range = ToRange(extent, field);
      !range.ok()) {
    return range.status();
  }
  config.gpa = mmu::Gpa(static_cast<uint64_t>(proto.gpa_bytes()));
  config.size_bytes = static_cast<uint64_t>(proto.size_bytes());
  // Asked before the daemon's own limit of memory: no limit makes it possible.
  if (absl::Status status = mmu::CheckSlotSize(config.size_bytes);
      !status.ok()) {
    return InField(std::move(status), absl::StrCat(field, "."));
  }
  absl::StatusOr<mmu::BackingKind> backing =
      ToBacking(proto.backing(), path("backing"));
  if (!backing.ok()) return backing.status();
  config.backing = *backing;
  absl::StatusOr<mmu::Level> level =
      ToLevel(proto.host_page_size(), mmu::Level::k4K, path("host_page_size"));
  if (!level.ok()) return level.status();
  config.host_page_level = *level;
  config.mode = proto.readonly() ? mmu::MemslotConfig::Mode::kReadOnly
                                 : mmu::MemslotConfig::Mode::kReadWrite;
  return config;
}

absl::StatusOr<v1::VmView> ToView(v1::VmView view, v1::VmView unset) {
  switch (view) {
    case v1::VM_VIEW_UNSPECIFIED:
      return unset;
    case v1::VM_VIEW_BASIC:
    case v1::VM_VIEW_FULL:
      return view;
    default:
      return WrongValue(mmu::Reason::kInvalidEnumValue, "view",
                        static_cast<int>(view), "BASIC or FULL");
  }
}

absl::Status InMemslotFields(absl::Status status) {
  return InFields(std::move(status), {{"gpa", "gpa_bytes"}});
}

v1::Vm ToProto(const ShownVm& vm, v1::VmView view) {
  const VmSettings& settings = vm.settings;
  const mmu::VmConfig& config = settings.facts.config;
  v1::Vm proto;
  proto.set_name(settings.facts.name);
  proto.set_uid(settings.facts.uid);
  FillMmu(config, &proto);
  proto.set_shadow_page_limit(ToInt32(settings.shadow_page_limit));
  if (proto.has_stage2()) {
    proto.mutable_stage2()->set_eager_split_chunk_bytes(
        static_cast<int64_t>(settings.eager_split_chunk_bytes));
  }
  proto.set_vcpu_count(config.vcpu_count);
  proto.set_dirty_ring_entries(static_cast<int32_t>(config.dirty_ring_entries));
  int64_t memory = 0;
  for (const mmu::MemslotInfo& slot : settings.slots) {
    memory += static_cast<int64_t>(slot.config.size_bytes);
    if (view == v1::VM_VIEW_FULL) {
      *proto.add_memslots() =
          ToProto(slot, settings.facts.name, LogOf(vm, slot.config.slot));
    }
  }
  for (const auto& [key, value] : settings.labels) {
    (*proto.mutable_labels())[key] = value;
  }
  proto.set_state(vm.deleting ? v1::VM_STATE_DELETING : v1::VM_STATE_READY);
  proto.set_memory_size_bytes(memory);
  v1::PageCounts* pages = proto.mutable_mapped_pages();
  pages->set_pages_4k_count(static_cast<int64_t>(vm.mapped_4k));
  pages->set_pages_2m_count(static_cast<int64_t>(vm.mapped_2m));
  pages->set_pages_1g_count(static_cast<int64_t>(vm.mapped_1g));
  proto.set_vcpu_state(VcpuStateOf(vm.vcpus));
  if (vm.pause.has_value()) *proto.mutable_pause() = ToProto(*vm.pause);
  for (v1::VmCondition& condition : ConditionsOf(vm)) {
    *proto.add_conditions() = std::move(condition);
  }
  *proto.mutable_create_time() = ToProto(vm.create_time);
  proto.set_etag(EtagOf(settings));
  return proto;
}

v1::VcpuPause ToProto(const VcpuPause::State& pause) {
  v1::VcpuPause proto;
  *proto.mutable_since() = ToProto(pause.shown_since);
  *proto.mutable_expire_time() = ToProto(WallTime::Of(pause.expires));
  return proto;
}

v1::VcpuState VcpuStateOf(const ShownVcpus& vcpus) {
  if (vcpus.paused) return v1::VCPU_STATE_PAUSED;
  if (!vcpus.run_workload) return v1::VCPU_STATE_IDLE;
  return vcpus.wait_for_ring ? v1::VCPU_STATE_RING_FULL
                             : v1::VCPU_STATE_RUNNING;
}

v1::Memslot ToProto(const mmu::MemslotInfo& slot, absl::string_view vm_name,
                    const absl::optional<mmu::SlotLogView>& log) {
  v1::Memslot proto;
  proto.set_name(MakeMemslotName(vm_name, slot.config.slot));
  proto.set_slot(static_cast<int32_t>(slot.config.slot));
  proto.set_gpa_bytes(static_cast<int64_t>(slot.config.gpa.value()));
  proto.set_size_bytes(static_cast<int64_t>(slot.config.size_bytes));
  proto.set_backing(ToProto(slot.config.backing));
  proto.set_host_page_size(ToPageSize(slot.config.host_page_level));
  proto.set_readonly(slot.config.mode == mmu::MemslotConfig::Mode::kReadOnly);
  const bool logs = log.has_value() && slot.config.address_space == 0;
  *proto.mutable_dirty_log() =
      logs ? ToProto(*log) : NoDirtyLogOf(slot.config.slot);
  proto.set_generation(static_cast<int64_t>(slot.generation));
  proto.set_etag(EtagOf(slot));
  return proto;
}

std::string EtagOf(const mmu::MemslotInfo& slot) {
  const mmu::MemslotConfig& config = slot.config;
  return MakeEtag(absl::StrCat(
      config.slot, " ", config.gpa.value(), " ", config.size_bytes, " ",
      static_cast<int>(config.backing), " ", mmu::ToInt(config.host_page_level),
      " ", static_cast<int>(config.mode)));
}

std::string EtagOf(const VmSettings& vm) {
  const mmu::VmConfig& config = vm.facts.config;
  const mmu::GuestPagingConfig& paging = config.guest_paging;
  std::string state = absl::StrCat(
      vm.facts.uid, " ", static_cast<int>(config.format), " ",
      config.root_levels, " ", config.vcpu_count, " ",
      config.dirty_ring_entries, " ", static_cast<int>(config.ad_bits), " ",
      static_cast<int>(config.pml), " ", static_cast<int>(config.mmio_caching),
      " ", static_cast<int>(config.mmu), " ", vm.shadow_page_limit, " ",
      vm.eager_split_chunk_bytes, " ", static_cast<int>(paging.mode), " ",
      static_cast<int>(paging.large_pages), " ", paging.processes, " ",
      static_cast<int>(paging.ad_bits));
  for (const mmu::MemslotInfo& slot : vm.slots) {
    absl::StrAppend(&state, " ", EtagOf(slot));
  }
  // Neither separator can occur in a key or a value.
  for (const auto& [key, value] : vm.labels) {
    absl::StrAppend(&state, " ", key, "=", value);
  }
  return MakeEtag(state);
}

}  // namespace mmud
