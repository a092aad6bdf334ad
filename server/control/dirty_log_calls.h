// The calls of a dirty log's owner. A unary call makes one of them; a harvest
// makes many on one stream. Their errors are about the VM.

#ifndef SERVER_CONTROL_DIRTY_LOG_CALLS_H_
#define SERVER_CONTROL_DIRTY_LOG_CALLS_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmu_core/stats/mmu_cost.h"
#include "server/control/managed_vm.h"
#include "server/control/named_pages.h"

namespace mmud {

// Turns an error of mmu_core about the dirty log of the VM named `vm` into one
// for a client: names the request's field in place of mmu_core's parameter, and
// the VM as the resource.
absl::Status AboutLog(absl::Status status, absl::string_view vm);

// As mmu::Vm::GetDirtyLog, but an error names no field. Its resource is the VM.
absl::StatusOr<mmu::DirtyLogView> GetLog(const ManagedVm& vm);

// As mmu::Vm::SealDirtyLog.
struct SealedLog {
  mmu::SealOutcome outcome;
  mmu::MmuCost cost;
};
absl::StatusOr<SealedLog> Seal(ManagedVm& vm, const mmu::LogCall& call,
                               uint64_t acknowledged_epoch);

// Clears step by step, as mmu::Vm::ClearDirtyLog. `keep_going` is called before
// each step; its error is returned. `part_done` is called after each step. A
// caller that leaves in between has cleared a part, and can safely ask for that
// part again.
struct ClearCalls {
  std::function<absl::Status()> keep_going;
  std::function<void()> part_done;
};
struct ClearedPages {
  mmu::ClearResult result;  // of all steps
  mmu::MmuCost cost;
};
absl::StatusOr<ClearedPages> Clear(ManagedVm& vm, const mmu::LogCall& call,
                                   uint64_t epoch, const NamedPages& pages,
                                   const ClearCalls& calls);

// As mmu::Vm::AcknowledgePages. `pages` may be null: all.
absl::StatusOr<mmu::AcknowledgeResult> Acknowledge(ManagedVm& vm,
                                                   const mmu::LogCall& call,
                                                   uint64_t epoch,
                                                   const NamedPages* pages);

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_CALLS_H_
