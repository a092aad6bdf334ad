#include "server/services/vm_service.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "grpcpp/support/status.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/budget.h"
#include "server/base/errors.h"
#include "server/base/etag.h"
#include "server/base/resource_names.h"
#include "server/rpc/call_context.h"
#include "server/services/call.h"
#include "server/services/convert.h"
#include "server/services/dirty_log_control.h"
#include "server/services/mmu_convert.h"
#include "server/services/vm_convert.h"
#include "server/vm_registry.h"

namespace mmud {
namespace {

// A split or recovery goes through the slots: they must stay as they are.
absl::Status CheckNoSplit(const ManagedVm& vm) {
  if (!vm.is_splitting()) return absl::OkStatus();
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition, "OPERATION_RUNNING",
               "a split or recovery of huge pages works on the memslots; "
               "cancel it or wait for its end"),
      "mmud.v1.Vm", vm.name());
}

// Dirty pages that nobody has cleared, if the request discards them; else
// UNACKED_EPOCH if there are any. ETAG_MISMATCH.
absl::StatusOr<int64_t> CheckDeletion(const v1::DeleteVmRequest& request,
                                      const ManagedVm& vm) {
  if (absl::Status status =
          CheckEtag(request.etag(), EtagOf(vm), "mmud.v1.Vm", vm.name());
      !status.ok()) {
    return status;
  }
  const auto lost = static_cast<int64_t>(vm.vm().CountUnackedPages());
  if (lost == 0 || request.discard_unacked()) return lost;
  return WithResource(
      ApiError(absl::StatusCode::kFailedPrecondition, "UNACKED_EPOCH",
               absl::StrCat("the dirty log of ", vm.name(), " has ", lost,
                            " pages that were not cleared; seal and clear "
                            "them, or set discard_unacked")),
      "mmud.v1.Vm", vm.name());
}

v1::DeleteVmResponse ToResponse(const VmRegistry::Deleted& deleted) {
  mmu::MmuCost cost;
  cost.wall = deleted.wall;
  v1::DeleteVmResponse response;
  *response.mutable_cost() = ToProto(cost);
  response.set_discarded_page_count(deleted.discarded_page_count);
  return response;
}

v1::Vm ToVm(const VmRegistry::Sight& vm) {
  if (vm.use) return ToProto(*vm.use);
  v1::Vm proto;
  proto.set_name(vm.name);
  proto.set_state(v1::VM_STATE_DELETING);
  *proto.mutable_create_time() = ToProto(vm.create_time);
  return proto;
}

// The other slot exists already: ALREADY_EXISTS, where mmu_core knows only the
// request.
absl::Status AgainstExisting(const absl::Status& status) {
  const mmu::ErrorDetail detail = mmu::DetailOf(status);
  if (detail.reason != "REGION_OVERLAP") return status;
  return mmu::MakeError(absl::StatusCode::kAlreadyExists, detail,
                        std::string(status.message()));
}

}  // namespace

VmServiceImpl::VmServiceImpl(DaemonState& state)
    : RpcService("mmud.v1.VmService", state.calls), state_(state) {
  Long("CreateVm", this, &VmServiceImpl::CreateVm);
  Short("GetVm", this, &VmServiceImpl::GetVm);
  Short("ListVms", this, &VmServiceImpl::ListVms);
  Long("DeleteVm", this, &VmServiceImpl::DeleteVm);
  Short("GetCapabilities", this, &VmServiceImpl::GetCapabilities);
  Long("SetMemslot", this, &VmServiceImpl::SetMemslot);
  Long("DeleteMemslot", this, &VmServiceImpl::DeleteMemslot);
  Long("SetShadowPageLimit", this, &VmServiceImpl::SetShadowPageLimit);
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
    return InvalidField("INVALID_REQUEST", "vm",
                        "vm is not set; it says what to make");
  }
  const std::string name = VmName(request.vm_id());
  absl::StatusOr<mmu::VmConfig> config = ToVmConfig(request.vm(), name, "vm");
  if (!config.ok()) return config.status();
  if (config->nx_huge_pages == mmu::VmConfig::NxHugePages::kOptOut &&
      !state_.config.allow_nx_huge_pages_opt_out) {
    const std::string field =
        absl::StrCat("vm.", MmuName(request.vm()), ".nx_huge_pages_opt_out");
    return mmu::MakeError(
        absl::StatusCode::kPermissionDenied,
        {"NX_OPT_OUT_DENIED", field, EPERM},
        absl::StrCat(field,
                     " is true, and this daemon does not let VMs opt out; "
                     "start it with --allow_nx_huge_pages_opt_out"));
  }
  absl::StatusOr<VmUse> vm = state_.vms.Create(name, *config);
  if (!vm.ok()) return vm.status();
  v1::CreateVmResponse response;
  *response.mutable_vm() = ToProto(**vm);
  return response;
}

grpc::Status VmServiceImpl::GetVm(CallContext*, const v1::GetVmRequest* request,
                                  v1::GetVmResponse* response) {
  if (absl::Status status = CheckVmName(request->name(), "name");
      !status.ok()) {
    return ToGrpcStatus(status);
  }
  const absl::StatusOr<VmRegistry::Sight> vm = state_.vms.Look(request->name());
  if (!vm.ok()) return ToGrpcStatus(vm.status());
  *response->mutable_vm() = ToVm(*vm);
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
  const auto limit = static_cast<size_t>(*page_size);
  const std::vector<VmRegistry::Sight> vms = state_.vms.List(*after, limit + 1);
  for (size_t i = 0; i < std::min(vms.size(), limit); ++i) {
    *response->add_vms() = ToVm(vms[i]);
  }
  if (vms.size() > limit) {
    response->set_next_page_token(MakePageToken("vms", vms[limit - 1].name));
  }
  return grpc::Status::OK;
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
  for (const BudgetUse& use : state_.Budgets()) {
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
  if (!request.has_memslot()) {
    return InvalidField("INVALID_REQUEST", "memslot",
                        "memslot is not set; it says what to make");
  }
  absl::StatusOr<mmu::MemslotConfig> config =
      ToMemslotConfig(request.memslot(), (*vm)->name(), "memslot");
  if (!config.ok()) return config.status();
  const std::string name = MakeMemslotName((*vm)->name(), config->slot);

  absl::MutexLock lock(&(*vm)->slots_mu());
  const absl::optional<mmu::MemslotInfo> before = (*vm)->FindSlot(config->slot);
  if (!request.etag().empty()) {
    if (!before.has_value()) return MemslotNotFound(name);
    if (absl::Status status =
            CheckEtag(request.etag(), EtagOf(*before), "mmud.v1.Memslot", name);
        !status.ok()) {
      return status;
    }
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
    return InField(AgainstExisting(status), "memslot.");
  }
  cost.wall = mmu::MonotonicTime::Now() - start;
  v1::SetMemslotResponse response;
  const absl::optional<mmu::DirtyLogInfo> log =
      (*vm)->vm().FindDirtyLog(config->slot);
  if (const absl::optional<mmu::MemslotInfo> after =
          (*vm)->FindSlot(config->slot)) {
    *response.mutable_memslot() =
        ToProto(*after, (*vm)->name(),
                after->dirty_log_enabled && log.has_value() ? &*log : nullptr);
  }
  *response.mutable_cost() = ToProto(cost);
  return response;
}

grpc::Status VmServiceImpl::SetShadowPageLimit(
    CallContext* context, const v1::SetShadowPageLimitRequest* request,
    v1::SetShadowPageLimitResponse* response) {
  return Mutate(state_, *context, "SetShadowPageLimit", WhileDraining::kRefuse,
                *request, response, [&] { return SetLimit(*request); });
}

absl::StatusOr<v1::SetShadowPageLimitResponse> VmServiceImpl::SetLimit(
    const v1::SetShadowPageLimitRequest& request) {
  absl::StatusOr<VmUse> vm = FindVm(state_, request.vm(), "vm");
  if (!vm.ok()) return vm.status();
  if (request.shadow_page_limit() < 0) {
    return WrongValue("INVALID_RANGE", "shadow_page_limit",
                      request.shadow_page_limit(), "at least 64");
  }
  absl::MutexLock lock(&(*vm)->slots_mu());
  if (absl::Status status =
          CheckEtag(request.etag(), EtagOf(**vm), "mmud.v1.Vm", (*vm)->name());
      !status.ok()) {
    return status;
  }
  mmu::MmuCost cost;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  if (absl::Status status = (*vm)->vm().SetShadowPageLimit(
          static_cast<uint64_t>(request.shadow_page_limit()), &cost);
      !status.ok()) {
    if (mmu::DetailOf(status).reason != "NO_SHADOW_PAGES") return status;
    return WithResource(status, "mmud.v1.Vm", (*vm)->name());
  }
  cost.wall = mmu::MonotonicTime::Now() - start;
  v1::SetShadowPageLimitResponse response;
  response.set_shadow_page_limit(ToInt32((*vm)->vm().shadow_page_limit()));
  response.set_shadow_page_count(
      static_cast<int64_t>((*vm)->vm().Stats().mmu_shadow_pages));
  *response.mutable_cost() = ToProto(cost);
  return response;
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

  absl::MutexLock lock(&(*vm)->slots_mu());
  const absl::optional<mmu::MemslotInfo> slot = (*vm)->FindSlot(name->slot);
  if (!slot.has_value()) return MemslotNotFound(request.name());
  if (absl::Status status = CheckEtag(request.etag(), EtagOf(*slot),
                                      "mmud.v1.Memslot", request.name());
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckNoSplit(**vm); !status.ok()) return status;
  mmu::MmuCost cost;
  const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
  absl::StatusOr<uint64_t> lost;
  {
    absl::MutexLock logs(&(*vm)->dirty_log_mu());
    lost = (*vm)->vm().DeleteMemslot(
        name->slot, request.discard_unacked() ? mmu::Vm::Unacked::kDiscard
                                              : mmu::Vm::Unacked::kRefuse);
    if (lost.ok()) ForgetSettingsIfOff(**vm);
  }
  if (!lost.ok()) return lost.status();
  cost.wall = mmu::MonotonicTime::Now() - start;
  state_.vms.ReleaseMemory(**vm, ContentBytes({slot->config}));
  v1::DeleteMemslotResponse response;
  *response.mutable_cost() = ToProto(cost);
  response.set_discarded_page_count(static_cast<int64_t>(*lost));
  return response;
}

}  // namespace mmud
