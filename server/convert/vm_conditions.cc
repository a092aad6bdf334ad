#include "server/convert/vm_conditions.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/vm/run/workload.h"
#include "server/base/wall_time.h"
#include "server/control/shown_vm.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

using Conditions = std::vector<v1::VmCondition>;

void Add(v1::VmConditionType type, WallTime since, std::string message,
         Conditions* conditions) {
  v1::VmCondition condition;
  condition.set_type(type);
  *condition.mutable_since() = ToProto(since);
  condition.set_message(std::move(message));
  conditions->push_back(std::move(condition));
}

void AddGuestLost(const ShownVm& vm, Conditions* conditions) {
  const absl::optional<mmu::GuestLoss>& loss = vm.guest_loss;
  if (!loss.has_value()) return;
  Add(v1::VM_CONDITION_TYPE_GUEST_LOST, WallTime::Of(loss->since),
      absl::StrCat("the guest on vCPU ", loss->vcpu,
                   " cannot continue, delete the VM and create it again: ",
                   loss->message),
      conditions);
}

void AddRingFull(const ShownVm& vm, Conditions* conditions) {
  if (!vm.waiting_for_ring_since.has_value()) return;
  Add(v1::VM_CONDITION_TYPE_RING_FULL, WallTime::Of(*vm.waiting_for_ring_since),
      "a vCPU waits for room in its dirty ring; seal the dirty log and clear "
      "its pages",
      conditions);
}

void AddPaused(const ShownVm& vm, Conditions* conditions) {
  if (!vm.pause.has_value()) return;
  Add(v1::VM_CONDITION_TYPE_PAUSED, vm.pause->shown_since,
      "the vCPUs stand still until ResumeVcpus or the end of the pause",
      conditions);
}

void AddPagesExhausted(const ShownVm& vm, Conditions* conditions) {
  if (!vm.ended_workload.has_value()) return;
  const absl::Status& error = vm.ended_workload->error;
  const mmu::Reason reason = mmu::DetailOf(error).reason;
  if (reason != mmu::Reason::kMmuPagesExhausted &&
      reason != mmu::Reason::kShadowPagesExhausted) {
    return;
  }
  Add(v1::VM_CONDITION_TYPE_PAGES_EXHAUSTED, vm.ended_workload->end_time,
      absl::StrCat("the last workload ended with ",
                   std::string(mmu::ToString(reason)), ": ", error.message()),
      conditions);
}

void AddLogAbandoned(const ShownVm& vm, Conditions* conditions) {
  const absl::optional<mmu::DirtyLogState>& log = vm.log;
  if (!log.has_value() || mmu::MonotonicTime::Now() < log->lease_end) {
    return;
  }
  Add(v1::VM_CONDITION_TYPE_LOG_ABANDONED, WallTime::Of(log->lease_end),
      absl::StrCat("the lease of the dirty log's owner, ", log->owner,
                   ", has ended; acquire the log to continue with it, or stop "
                   "it with force"),
      conditions);
}

}  // namespace

std::vector<v1::VmCondition> ConditionsOf(const ShownVm& vm) {
  Conditions conditions;
  AddGuestLost(vm, &conditions);
  AddRingFull(vm, &conditions);
  AddPaused(vm, &conditions);
  AddPagesExhausted(vm, &conditions);
  AddLogAbandoned(vm, &conditions);
  return conditions;
}

}  // namespace mmud
