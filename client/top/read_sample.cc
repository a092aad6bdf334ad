#include "client/top/read_sample.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/strip.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/views.h"
#include "client/top/sample.h"
#include "google/longrunning/operations.pb.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/admin_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/stats_service.pb.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

using google::longrunning::ListOperationsRequest;
using google::longrunning::Operation;

std::string IdOf(const std::string& vm) {
  return std::string(absl::StripPrefix(vm, "vms/"));
}

VmSample SampleVm(const v1::Vm& vm) {
  VmSample sample;
  sample.id = IdOf(vm.name());
  sample.uid = vm.uid();
  sample.mmu = MmuName(vm);
  sample.vcpu_count = vm.vcpu_count();
  sample.memory_size_bytes = vm.memory_size_bytes();
  sample.is_deleting = vm.state() == v1::VM_STATE_DELETING;
  sample.vcpu_state =
      ShortName(v1::VcpuState_Name(vm.vcpu_state()), "VCPU_STATE_");
  if (vm.has_pause()) {
    sample.paused_since = FromProto(vm.pause().since());
    sample.pause_expire_time = FromProto(vm.pause().expire_time());
  }
  for (const v1::VmCondition& condition : vm.conditions()) {
    sample.conditions.push_back(
        {.type = ShortName(v1::VmConditionType_Name(condition.type()),
                           "VM_CONDITION_TYPE_"),
         .since = FromProto(condition.since()),
         .message = condition.message()});
  }
  return sample;
}

bool IsLogged(const v1::Vm& vm) {
  return std::any_of(
      vm.memslots().begin(), vm.memslots().end(), [](const v1::Memslot& slot) {
        return slot.dirty_log().state() == v1::DIRTY_LOG_STATE_ACTIVE;
      });
}

LogSample SampleLog(const v1::DirtyLog& log) {
  LogSample sample;
  sample.log_id = log.log_id();
  sample.owner = log.owner();
  sample.lease = FromProto(log.lease());
  sample.lease_expire_time = FromProto(log.lease_expire_time());
  sample.open_epoch = log.open_epoch();
  sample.sealed_epoch = log.sealed_epoch();
  for (const v1::SlotDirtyLog& slot : log.slots()) {
    sample.open_page_count += slot.open_page_count();
    sample.sealed_page_count += slot.sealed_page_count();
    sample.in_flight_page_count += slot.in_flight_page_count();
  }
  return sample;
}

// The lock times of an operation whose metadata is a `Metadata`.
template <typename Metadata>
bool AddCost(const Operation& operation, WorkSample* sample) {
  Metadata metadata;
  if (!operation.metadata().UnpackTo(&metadata)) return false;
  sample->lock_wait = FromProto(metadata.cost().lock_wait());
  sample->max_lock_hold = FromProto(metadata.cost().max_lock_hold());
  return true;
}

WorkSample SampleWork(const Operation& operation, const OperationView& view) {
  WorkSample sample;
  sample.name = operation.name();
  sample.kind = view.kind;
  sample.state = view.state;
  sample.share = view.share;
  sample.words = view.words;
  if (view.running_time) sample.running_time = *view.running_time;
  if (v1::SplitMetadata split;
      operation.metadata().UnpackTo(&split) && split.has_remaining_time()) {
    sample.remaining_time = FromProto(split.remaining_time());
  }
  AddCost<v1::SplitMetadata>(operation, &sample) ||
      AddCost<v1::RecoverMetadata>(operation, &sample) ||
      AddCost<v1::StartDirtyLogMetadata>(operation, &sample) ||
      AddCost<v1::GenerationMetadata>(operation, &sample);
  return sample;
}

// Reads a sample, one kind of answer after the other.
class Reader {
 public:
  explicit Reader(Client* client) : client_(*client) {}

  absl::StatusOr<TopSample> Read() {
    const mmu::MonotonicTime start = mmu::MonotonicTime::Now();
    for (absl::Status (Reader::*const step)() :
         {&Reader::ReadDaemon, &Reader::ReadVms, &Reader::ReadStatistics,
          &Reader::ReadWork, &Reader::ReadLogs}) {
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    sample_.call_time = mmu::MonotonicTime::Now() - start;
    for (auto& [name, vm] : vms_) sample_.vms.push_back(std::move(vm));
    return std::move(sample_);
  }

 private:
  absl::Status ReadDaemon() {
    ++sample_.call_count;
    const auto info = client_.admin().GetBuildInfo({});
    if (!info.ok()) return info.status();
    sample_.daemon.version = info->version();
    sample_.daemon.uptime = FromProto(info->uptime());
    sample_.daemon.boot_id = info->boot_id();
    return absl::OkStatus();
  }

  absl::Status ReadVms() {
    v1::ListVmsRequest request;
    // Only the memslots tell which logs are on. GetDirtyLog of a log that is
    // off would count as a failed call of the daemon.
    request.set_view(v1::VM_VIEW_FULL);
    do {
      ++sample_.call_count;
      const auto page = client_.vms().ListVms(request);
      if (!page.ok()) return page.status();
      for (const v1::Vm& vm : page->vms()) {
        vms_[vm.name()] = SampleVm(vm);
        if (IsLogged(vm)) logged_.push_back(vm.name());
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return absl::OkStatus();
  }

  absl::Status ReadStatistics() {
    v1::GetMmuStatsRequest request;
    do {
      ++sample_.call_count;
      const auto page = client_.stats().GetMmuStats(request);
      if (!page.ok()) return page.status();
      for (const v1::VmMmuStats& vm : page->vms()) {
        const auto found = vms_.find(vm.vm());
        if (found == vms_.end()) continue;
        for (const v1::MmuStatistic& statistic : vm.statistics()) {
          found->second.statistics[statistic.name()] = statistic.value();
        }
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    sample_.time = mmu::MonotonicTime::Now();
    sample_.wall_time = WallTime::Now();
    return absl::OkStatus();
  }

  absl::Status ReadWork() {
    ListOperationsRequest request;
    request.set_filter("done = false");
    do {
      ++sample_.call_count;
      const auto page = client_.operations().List(request);
      if (!page.ok()) return page.status();
      for (const Operation& operation : page->operations()) {
        const OperationView view = ViewOperation(operation);
        const auto found = vms_.find(view.vm);
        if (found == vms_.end()) continue;
        found->second.work.push_back(SampleWork(operation, view));
      }
      request.set_page_token(page->next_page_token());
    } while (!request.page_token().empty());
    return absl::OkStatus();
  }

  absl::Status ReadLogs() {
    for (const std::string& name : logged_) {
      ++sample_.call_count;
      v1::GetDirtyLogRequest request;
      request.set_vm(name);
      request.set_count_open_pages(true);
      const auto response = client_.dirty_log().GetDirtyLog(request);
      if (absl::IsNotFound(response.status()) ||
          absl::IsFailedPrecondition(response.status())) {
        continue;  // the VM was deleted or the log was stopped meanwhile
      }
      if (!response.ok()) return response.status();
      vms_[name].log = SampleLog(response->dirty_log());
    }
    return absl::OkStatus();
  }

  Client& client_;
  TopSample sample_;
  std::map<std::string, VmSample> vms_;  // by name
  std::vector<std::string> logged_;      // names
};

}  // namespace

absl::StatusOr<TopSample> ReadSample(Client& client) {
  return Reader(&client).Read();
}

}  // namespace mmud::client
