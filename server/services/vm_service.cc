#include "server/services/vm_service.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/base/labels.h"
#include "server/base/resource_names.h"
#include "server/control/shown_vm.h"
#include "server/control/vcpu_pause.h"
#include "server/control/vm_registry.h"
#include "server/convert/convert.h"
#include "server/convert/dirty_log_convert.h"
#include "server/convert/mmu_convert.h"
#include "server/convert/vm_convert.h"
#include "server/convert/vm_update.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"

namespace mmud {
namespace {

// The default and the maximum pause of vCPUs.
constexpr absl::Duration kDefaultPause = absl::Seconds(10);
constexpr absl::Duration kMaxPause = absl::Hours(1);

// A split or recovery works through the slots: they must not change meanwhile.
absl::Status CheckNoSplit(const ManagedVm& vm) {
  if (!vm.is_splitting()) return absl::OkStatus();
  return AboutVm(
      ApiError(absl::StatusCode::kFailedPrecondition,
               mmu::Reason::kOperationRunning,
               "a split or recovery of huge pages works on the memslots; "
               "cancel it or wait for its end"),
      vm.name());
}

// The pages of the VM's dirty log that were not acknowledged, if the request
// discards them. Otherwise UNDELIVERED_PAGES if there are any. ETAG_MISMATCH.
absl::StatusOr<mmu::UndeliveredCounts> CheckDeletion(
    const v1::DeleteVmRequest& request, const ManagedVm& vm) {
  if (absl::Status status = CheckEtag(request.etag(), EtagOf(SettingsOf(vm)),
                                      "mmud.v1.Vm", vm.name());
      !status.ok()) {
    return status;
  }
  absl::Status taken_in;
  const mmu::UndeliveredCounts lost = vm.vm().CountUndelivered(&taken_in);
  if (request.force()) return lost;
  // If recorded pages could not be moved into the log, `lost` lacks them.
  // Without this error the deletion would lose them silently.
  if (!taken_in.ok()) return AboutVm(taken_in, vm.name());
  if (lost.none()) return lost;
  return AboutVm(InFields(mmu::UndeliveredPages(lost, vm.name()),
                          {{"undelivered", "force"}}),
                 vm.name());
}

v1::DeleteVmResponse ToResponse(const VmRegistry::Deleted& deleted) {
  mmu::MmuCost cost;
  cost.wall = deleted.wall;
  v1::DeleteVmResponse response;
  *response.mutable_cost() = ToProto(cost);
  *response.mutable_discarded() = ToProto(deleted.discarded);
  return response;
}

v1::Vm Shown(const ManagedVm& vm, v1::VmView view) {
  return ToProto(ShowVm(vm, view == v1::VM_VIEW_FULL ? SlotLogs::kRead
                                                     : SlotLogs::kLeaveOut),
                 view);
}

v1::Vm ToVm(const VmRegistry::Sight& vm, v1::VmView view) {
  if (vm.use) return Shown(*vm.use, view);
  v1::Vm proto;
  proto.set_name(vm.name);
  proto.set_uid(vm.uid);
  proto.set_state(v1::VM_STATE_DELETING);
  *proto.mutable_create_time() = ToProto(vm.create_time);
  return proto;
}

// Maps the error to ALREADY_EXISTS, because the other slot exists already;
// mmu_core knows only the request.
absl::Status AgainstExisting(const absl::Status& status) {
  const mmu::ErrorDetail detail = mmu::DetailOf(status);
  if (detail.reason != mmu::Reason::kRegionOverlap) return status;
  return mmu::MakeError(absl::StatusCode::kAlreadyExists, detail,
                        std::string(status.message()));
}

absl::Status NxOptOutDenied(const v1::Vm& vm) {
  const std::string field =
      absl::StrCat("vm.", MmuName(vm), ".nx_huge_pages_opt_out");
  return mmu::MakeError(
      absl::StatusCode::kPermissionDenied,
      {mmu::Reason::kNxOptOutDenied, field, EPERM},
      absl::StrCat(field,
                   " is true, and this daemon does not let VMs opt out; start "
                   "it with --allow_nx_huge_pages_opt_out"));
}

absl::Status SetShadowPageLimit(uint64_t limit, ManagedVm& vm,
                                mmu::MmuCost* cost) {
  absl::Status status = vm.vm().SetShadowPageLimit(limit, cost);
  if (mmu::DetailOf(status).reason == mmu::Reason::kNoShadowPages) {
    return AboutVm(status, vm.name());
  }
  return InField(status, "vm.");
}

// What an update says about the VM's MMU.
absl::Status ChangeMmu(const VmUpdate& update, ManagedVm& vm,
                       mmu::MmuCost* cost) {
  if (update.shadow_page_limit.has_value()) {
    absl::Status status =
        SetShadowPageLimit(*update.shadow_page_limit, vm, cost);
    if (!status.ok()) return status;
  }
  if (!update.eager_split_chunk_bytes.has_value()) return absl::OkStatus();
  return InField(vm.vm().SetEagerSplitChunk(*update.eager_split_chunk_bytes),
                 "vm.");
}

// Errors: INVALID_REQUEST, and the errors of ToMemslotConfig.
absl::StatusOr<mmu::MemslotConfig> ToConfig(
    const v1::SetMemslotRequest& request, const std::string& vm) {
  if (!request.has_memslot()) {
    return InvalidField(mmu::Reason::kInvalidRequest, "memslot",
                        "memslot is required");
  }
  return ToMemslotConfig(request.memslot(), vm, "memslot");
}

// Checks an etag if one is given. MEMSLOT_NOT_FOUND, ETAG_MISMATCH.
absl::Status CheckSlotEtag(const std::string& etag,
                           const absl::optional<mmu::MemslotInfo>& slot,
                           const std::string& name) {
  if (etag.empty()) return absl::OkStatus();
  if (!slot.has_value()) return MemslotNotFound(name);
  return CheckEtag(etag, EtagOf(*slot), "mmud.v1.Memslot", name);
}

// `slot` is left out if it is gone again.
v1::SetMemslotResponse ToResponse(const ManagedVm& vm, uint32_t slot,
                                  const mmu::MmuCost& cost) {
  v1::SetMemslotResponse response;
  if (const absl::optional<mmu::MemslotInfo> info = vm.FindSlot(slot)) {
    *response.mutable_memslot() =
        ToProto(*info, vm.name(), vm.vm().FindSlotLog(slot));
  }
  *response.mutable_cost() = ToProto(cost);
  return response;
}

// Deletes `slot`, which `request` names. The errors of mmu::Vm::DeleteMemslot.
absl::StatusOr<v1::DeleteMemslotResponse> DeleteSlot(
    const v1::DeleteMemslotRequest& request, uint32_t slot, ManagedVm& vm) {
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  const absl::StatusOr<mmu::UndeliveredCounts> lost = vm.vm().DeleteMemslot(
      slot, request.discard_undelivered() ? mmu::Undelivered::kDiscard
                                          : mmu::Undelivered::kRefuse);
  if (!lost.ok()) {
    return WithResource(
        InFields(lost.status(), {{"undelivered", "discard_undelivered"}}),
        "mmud.v1.Memslot", request.name());
  }
  mmu::MmuCost cost;
  cost.wall = mmu::MonotonicTime::Now() - start;
  v1::DeleteMemslotResponse response;
  *response.mutable_cost() = ToProto(cost);
  *response.mutable_discarded() = ToProto(*lost);
  return response;
}

std::vector<mmu::MemslotInfo> SlotsById(const ManagedVm& vm) {
  std::vector<mmu::MemslotInfo> slots = vm.vm().Memslots();
  std::sort(slots.begin(), slots.end(), [](const auto& a, const auto& b) {
    return a.config.slot < b.config.slot;
  });
  return slots;
}

}  // namespace

VmServiceImpl::VmServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.VmService", state.calls), state_(state) {
  Long("CreateVm", this, &VmServiceImpl::CreateVm);
  Short("GetVm", this, &VmServiceImpl::GetVm);
  Short("ListVms", this, &VmServiceImpl::ListVms);
  Long("UpdateVm", this, &VmServiceImpl::UpdateVm);
  Long("DeleteVm", this, &VmServiceImpl::DeleteVm);
  Long("PauseVcpus", this, &VmServiceImpl::PauseVcpus);
  Long("ResumeVcpus", this, &VmServiceImpl::ResumeVcpus);
  Short("GetCapabilities", this, &VmServiceImpl::GetCapabilities);
  Long("SetMemslot", this, &VmServiceImpl::SetMemslot);
  Short("GetMemslot", this, &VmServiceImpl::GetMemslot);
  Short("ListMemslots", this, &VmServiceImpl::ListMemslots);
  Long("DeleteMemslot", this, &VmServiceImpl::DeleteMemslot);
  CheckComplete();
}

grpc::Status VmServiceImpl::CreateVm(CallContext* context,
                                     const v1::CreateVmRequest* request,
                                     v1::CreateVmResponse* response) {
  return Mutate(state_, *context, "CreateVm", WhileDraining::kRefuse, *request,
                response, [&] { return Create(*request); });
}

absl::StatusOr<v1::CreateVmResponse> VmServiceImpl::Create(
    const v1::CreateVmRequest& request) {
  if (absl::Status status = CheckVmId(request.vm_id(), "vm_id"); !status.ok()) {
    return status;
  }
  if (!request.has_vm()) {
    return InvalidField(mmu::Reason::kInvalidRequest, "vm", "vm is required");
  }
  const std::string name = VmName(request.vm_id());
  absl::StatusOr<mmu::VmConfig> config = ToVmConfig(request.vm(), name, "vm");
  if (!config.ok()) return config.status();
  if (config->nx_huge_pages == mmu::VmConfig::NxHugePages::kOptOut &&
      !state_.config.allow_nx_huge_pages_opt_out) {
    return NxOptOutDenied(request.vm());
  }
  Labels labels(request.vm().labels().begin(), request.vm().labels().end());
  if (absl::Status status = CheckLabels(labels, "vm.labels"); !status.ok()) {
    return status;
  }
  absl::StatusOr<VmUse> vm =
      state_.vms.Create(name, *config, std::move(labels));
  if (!vm.ok()) {
    return InMemslotFields(InMmuFields(vm.status(), request.vm()));
  }
  v1::CreateVmResponse response;
  *response.mutable_vm() = Shown(**vm, v1::VM_VIEW_FULL);
  return response;
}

grpc::Status VmServiceImpl::GetVm(CallContext*, const v1::GetVmRequest* request,
                                  v1::GetVmResponse* response) {
  if (absl::Status status = CheckVmName(request->name(), "name");
      !status.ok()) {
    return ToGrpcStatus(status);
  }
  const absl::StatusOr<v1::VmView> view =
      ToView(request->view(), v1::VM_VIEW_FULL);
  if (!view.ok()) return ToGrpcStatus(view.status());
  const absl::StatusOr<VmRegistry::Sight> vm = state_.vms.Look(request->name());
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  *response->mutable_vm() = ToVm(*vm, *view);
  return grpc::Status::OK;
}

grpc::Status VmServiceImpl::ListVms(CallContext*,
                                    const v1::ListVmsRequest* request,
                                    v1::ListVmsResponse* response) {
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  const absl::StatusOr<std::string> after =
      ParsePageToken("vms", request->page_token());
  if (!after.ok()) return ToGrpcStatus(after.status());
  const absl::StatusOr<v1::VmView> view =
      ToView(request->view(), v1::VM_VIEW_BASIC);
  if (!view.ok()) return ToGrpcStatus(view.status());
  const auto limit = static_cast<size_t>(*page_size);
  const std::vector<VmRegistry::Sight> vms = state_.vms.List(*after, limit + 1);
  size_t shown = 0;
  for (size_t bytes = 0;
       shown < std::min(vms.size(), limit) && bytes < kMaxPageBytes; ++shown) {
    v1::Vm& vm = *response->add_vms();
    vm = ToVm(vms[shown], *view);
    bytes += vm.ByteSizeLong();
  }
  if (shown < vms.size()) {
    response->set_next_page_token(MakePageToken("vms", vms[shown - 1].name));
  }
  return grpc::Status::OK;
}

grpc::Status VmServiceImpl::UpdateVm(CallContext* context,
                                     const v1::UpdateVmRequest* request,
                                     v1::UpdateVmResponse* response) {
  return Mutate(state_, *context, "UpdateVm", WhileDraining::kRefuse, *request,
                response, [&] { return Update(*request); });
}

absl::StatusOr<v1::UpdateVmResponse> VmServiceImpl::Update(
    const v1::UpdateVmRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm().name(), "vm.name");
  if (!vm.ok()) return vm.status();
  absl::StatusOr<VmUpdate> update = ToUpdate(request);
  if (!update.ok()) return update.status();
  const absl::StatusOr<VmUse> change = state_.vms.ForChange(*vm);
  if (!change.ok()) return change.status();
  absl::MutexLock lock(&(*vm)->slots_mu());
  if (absl::Status status = CheckEtag(request.etag(), EtagOf(SettingsOf(**vm)),
                                      "mmud.v1.Vm", (*vm)->name());
      !status.ok()) {
    return status;
  }
  mmu::MmuCost cost;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  if (absl::Status status = ChangeMmu(*update, **vm, &cost); !status.ok()) {
    return status;
  }
  // Cannot fail, so the update changes everything or nothing.
  if (update->labels.has_value()) (*vm)->set_labels(*std::move(update->labels));
  cost.wall = mmu::MonotonicTime::Now() - start;
  v1::UpdateVmResponse response;
  *response.mutable_vm() = Shown(**vm, v1::VM_VIEW_BASIC);
  *response.mutable_cost() = ToProto(cost);
  return response;
}

grpc::Status VmServiceImpl::DeleteVm(CallContext* context,
                                     const v1::DeleteVmRequest* request,
                                     v1::DeleteVmResponse* response) {
  return Mutate(
      state_, *context, "DeleteVm", WhileDraining::kAllow, *request, response,
      [&](const RequestIdCache::SharedTurn& turn)
          -> absl::StatusOr<v1::DeleteVmResponse> {
        if (absl::Status status = CheckVmName(request->name(), "name");
            !status.ok()) {
          return status;
        }
        const absl::StatusOr<VmRegistry::Deleted> deleted = state_.vms.Delete(
            request->name(),
            [request](const ManagedVm& vm) {
              return CheckDeletion(*request, vm);
            },
            [context] { return CheckCaller(*context); },
            [turn](const VmRegistry::Deleted& end) {
              if (turn != nullptr) {
                turn->Answer(ToResponse(end).SerializeAsString());
              }
            });
        if (!deleted.ok()) return deleted.status();
        return ToResponse(*deleted);
      });
}

grpc::Status VmServiceImpl::PauseVcpus(CallContext* context,
                                       const v1::PauseVcpusRequest* request,
                                       v1::PauseVcpusResponse* response) {
  return Mutate(
      state_, *context, "PauseVcpus", WhileDraining::kAllow, *request, response,
      [&]() -> absl::StatusOr<v1::PauseVcpusResponse> {
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        absl::Duration duration = kDefaultPause;
        if (request->has_max_duration() &&
            (!FromProto(request->max_duration(), &duration) ||
             duration <= absl::ZeroDuration() || duration > kMaxPause)) {
          return WrongValue(mmu::Reason::kInvalidDuration, "max_duration",
                            Show(request->max_duration()),
                            "more than 0 and at most 1h");
        }
        const VcpuPause::State pause = (*vm)->pause().Extend(duration);
        state_.pauses.Watch(pause.expires);
        v1::PauseVcpusResponse answer;
        *answer.mutable_pause() = ToProto(pause);
        return answer;
      });
}

grpc::Status VmServiceImpl::ResumeVcpus(CallContext* context,
                                        const v1::ResumeVcpusRequest* request,
                                        v1::ResumeVcpusResponse* response) {
  return Mutate(
      state_, *context, "ResumeVcpus", WhileDraining::kAllow, *request,
      response, [&]() -> absl::StatusOr<v1::ResumeVcpusResponse> {
        absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
        if (!vm.ok()) return vm.status();
        (*vm)->pause().End();
        v1::ResumeVcpusResponse answer;
        answer.set_vcpu_state(VcpuStateOf(VcpusOf(**vm)));
        return answer;
      });
}

grpc::Status VmServiceImpl::GetCapabilities(
    CallContext*, const v1::GetCapabilitiesRequest*,
    v1::GetCapabilitiesResponse* response) {
  response->add_entry_formats(v1::ENTRY_FORMAT_EPT);
  response->add_entry_formats(v1::ENTRY_FORMAT_NPT);
  response->add_page_sizes(v1::PAGE_SIZE_4K);
  response->add_page_sizes(v1::PAGE_SIZE_2M);
  response->add_page_sizes(v1::PAGE_SIZE_1G);
  response->add_backings(v1::MEMORY_BACKING_ANONYMOUS);
  response->add_backings(v1::MEMORY_BACKING_MEMFD);
  response->add_backings(v1::MEMORY_BACKING_METADATA_ONLY);
  response->set_max_vms_count(state_.config.max_vms);
  response->set_max_vcpus_per_vm_count(mmu::kMaxVcpus);
  response->set_max_memslots_per_vm_count(kMaxSlot + 1);
  response->set_max_guest_memory_bytes(state_.config.max_guest_memory_bytes);
  response->set_max_message_bytes(kMaxMessageBytes);
  for (const BudgetUse& use : state_.Limits()) {
    v1::LimitUse* limit = response->add_limits();
    limit->set_name(use.name);
    limit->set_limit_count(use.limit);
    limit->set_used_count(use.used);
    limit->set_refused_count(use.refused);
  }
  return grpc::Status::OK;
}

grpc::Status VmServiceImpl::SetMemslot(CallContext* context,
                                       const v1::SetMemslotRequest* request,
                                       v1::SetMemslotResponse* response) {
  return Mutate(state_, *context, "SetMemslot", WhileDraining::kRefuse,
                *request, response, [&] { return Set(*request); });
}

absl::StatusOr<v1::SetMemslotResponse> VmServiceImpl::Set(
    const v1::SetMemslotRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  absl::StatusOr<mmu::MemslotConfig> config = ToConfig(request, (*vm)->name());
  if (!config.ok()) return config.status();
  const absl::StatusOr<VmUse> change = state_.vms.ForChange(*vm);
  if (!change.ok()) return change.status();
  absl::MutexLock lock(&(*vm)->slots_mu());
  const absl::optional<mmu::MemslotInfo> before = (*vm)->FindSlot(config->slot);
  const std::string name = MakeMemslotName((*vm)->name(), config->slot);
  if (absl::Status status = CheckSlotEtag(request.etag(), before, name);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckNoSplit(**vm); !status.ok()) return status;
  const int64_t bytes = before.has_value() ? 0 : ContentBytes({*config});
  if (absl::Status status = state_.vms.ReserveMemory(**vm, bytes);
      !status.ok()) {
    return status;
  }
  mmu::MmuCost cost;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  if (absl::Status status = (*vm)->vm().SetMemslot(*config); !status.ok()) {
    state_.vms.ReleaseMemory(**vm, bytes);
    return InMemslotFields(InField(AgainstExisting(status), "memslot."));
  }
  cost.wall = mmu::MonotonicTime::Now() - start;
  return ToResponse(**vm, config->slot, cost);
}

grpc::Status VmServiceImpl::GetMemslot(CallContext*,
                                       const v1::GetMemslotRequest* request,
                                       v1::GetMemslotResponse* response) {
  const absl::StatusOr<MemslotName> name =
      ParseMemslotName(request->name(), "name");
  if (!name.ok()) return ToGrpcStatus(name.status());
  const absl::StatusOr<VmUse> vm = state_.vms.Find(name->vm);
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  const absl::optional<mmu::MemslotInfo> slot = (*vm)->FindSlot(name->slot);
  if (!slot.has_value()) return ToGrpcStatus(MemslotNotFound(request->name()));
  *response->mutable_memslot() =
      ToProto(*slot, (*vm)->name(), (*vm)->vm().FindSlotLog(name->slot));
  return grpc::Status::OK;
}

grpc::Status VmServiceImpl::ListMemslots(CallContext*,
                                         const v1::ListMemslotsRequest* request,
                                         v1::ListMemslotsResponse* response) {
  const absl::StatusOr<VmUse> vm = FindVm(state_, request->vm(), "vm");
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  const absl::StatusOr<int> page_size = CheckPageSize(request->page_size());
  if (!page_size.ok()) return ToGrpcStatus(page_size.status());
  // A token of another VM is invalid, even if that VM had the same name.
  const std::string list = absl::StrCat("memslots of ", (*vm)->uid());
  const absl::StatusOr<absl::optional<uint64_t>> after =
      ParseNumberToken(list, request->page_token());
  if (!after.ok()) return ToGrpcStatus(after.status());
  for (const mmu::MemslotInfo& slot : SlotsById(**vm)) {
    if (after->has_value() && slot.config.slot <= **after) continue;
    if (response->memslots_size() == *page_size) {
      response->set_next_page_token(MakePageToken(
          list, absl::StrCat(response->memslots(*page_size - 1).slot())));
      break;
    }
    *response->add_memslots() =
        ToProto(slot, (*vm)->name(), (*vm)->vm().FindSlotLog(slot.config.slot));
  }
  return grpc::Status::OK;
}

grpc::Status VmServiceImpl::DeleteMemslot(
    CallContext* context, const v1::DeleteMemslotRequest* request,
    v1::DeleteMemslotResponse* response) {
  return Mutate(state_, *context, "DeleteMemslot", WhileDraining::kAllow,
                *request, response, [&] { return Delete(*request); });
}

absl::StatusOr<v1::DeleteMemslotResponse> VmServiceImpl::Delete(
    const v1::DeleteMemslotRequest& request) {
  const absl::StatusOr<MemslotName> name =
      ParseMemslotName(request.name(), "name");
  if (!name.ok()) return name.status();
  absl::StatusOr<VmUse> vm = state_.vms.Find(name->vm);
  if (!vm.ok()) return vm.status();
  const absl::StatusOr<VmUse> change = state_.vms.ForChange(*vm);
  if (!change.ok()) return change.status();
  absl::MutexLock lock(&(*vm)->slots_mu());
  const absl::optional<mmu::MemslotInfo> slot = (*vm)->FindSlot(name->slot);
  if (!slot.has_value()) return MemslotNotFound(request.name());
  if (absl::Status status = CheckEtag(request.etag(), EtagOf(*slot),
                                      "mmud.v1.Memslot", request.name());
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckNoSplit(**vm); !status.ok()) return status;
  absl::StatusOr<v1::DeleteMemslotResponse> response =
      DeleteSlot(request, name->slot, **vm);
  if (!response.ok()) return response.status();
  state_.vms.ReleaseMemory(**vm, ContentBytes({slot->config}));
  return response;
}

}  // namespace mmud
