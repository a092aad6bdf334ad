#include "client/comparison/temporary_vm.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/request_id.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

// The label that tells a VM of this program from another one with its name.
constexpr char kLabel[] = "created-by";
// A cancelled operation stops after its present chunk.
constexpr absl::Duration kOperationEnds = absl::Seconds(30);
constexpr absl::Duration kPollInterval = absl::Milliseconds(100);

bool IsGone(const absl::Status& status) {
  return ReasonOf(status) == v1::VM_NOT_FOUND;
}

// Whether `status` says that the daemon has refused the call, so that it has
// created nothing.
bool IsRefusal(const absl::Status& status) {
  return ReasonOf(status) != v1::ERROR_REASON_UNSPECIFIED;
}

bool HasLabel(Client& client, const std::string& name, const std::string& id) {
  v1::GetVmRequest request;
  request.set_name(name);
  request.set_view(v1::VM_VIEW_BASIC);
  const auto response = client.vms().GetVm(request);
  if (!response.ok()) return false;
  const auto label = response->vm().labels().find(kLabel);
  return label != response->vm().labels().end() && label->second == id;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TemporaryVm>> TemporaryVm::Create(
    Client* client, v1::CreateVmRequest request) {
  const std::string id = NewRequestId();
  (*request.mutable_vm()->mutable_labels())[kLabel] = id;
  auto vm = absl::WrapUnique(
      new TemporaryVm(client, absl::StrCat("vms/", request.vm_id())));
  const auto response = client->vms().CreateVm(request);
  if (response.ok()) return vm;
  if (IsRefusal(response.status()) || !HasLabel(*client, vm->name_, id)) {
    vm->deleted_ = true;  // it was not created
  }
  return response.status();
}

TemporaryVm::~TemporaryVm() {
  Delete().IgnoreError();  // the caller reports the error that led here
}

absl::Status TemporaryVm::Delete() {
  if (deleted_) return absl::OkStatus();
  if (absl::Status status = EndOperations(); !status.ok()) return status;
  if (absl::Status status = StopWorkload(); !status.ok()) return status;
  v1::DeleteVmRequest request;
  request.set_name(name_);
  request.set_force(true);
  const absl::Status status = client_->vms().DeleteVm(request).status();
  if (!status.ok() && !IsGone(status)) return status;
  deleted_ = true;
  return absl::OkStatus();
}

absl::Status TemporaryVm::EndOperations() {
  google::longrunning::ListOperationsRequest request;
  request.set_filter(absl::StrCat("vm = \"", name_, "\" AND done = false"));
  const auto list = client_->operations().List(request);
  if (!list.ok()) return list.status();
  for (const Operation& operation : list->operations()) {
    if (absl::Status status = client_->operations().Cancel(operation.name());
        !status.ok() && ReasonOf(status) != v1::OPERATION_DONE) {
      return status;
    }
    if (const auto done = client_->operations().Await(
            operation.name(), kPollInterval,
            [](const Operation&) { return absl::OkStatus(); }, kOperationEnds);
        !done.ok()) {
      return done.status();
    }
  }
  return absl::OkStatus();
}

absl::Status TemporaryVm::StopWorkload() {
  lab::v1::ListWorkloadsRequest request;
  request.set_vm(name_);
  const auto list = client_->workloads().ListWorkloads(request);
  if (IsGone(list.status())) return absl::OkStatus();
  if (!list.ok()) return list.status();
  for (const lab::v1::Workload& workload : list->workloads()) {
    if (workload.state() != lab::v1::WORKLOAD_STATE_RUNNING) continue;
    lab::v1::StopWorkloadRequest stop;
    stop.set_name(workload.name());
    const absl::Status status =
        client_->workloads().StopWorkload(stop).status();
    if (!status.ok() && ReasonOf(status) != v1::WORKLOAD_NOT_RUNNING) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace mmud::client
