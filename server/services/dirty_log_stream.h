// One GetDirtyLog call: what to send, then sending it.

#ifndef SERVER_SERVICES_DIRTY_LOG_STREAM_H_
#define SERVER_SERVICES_DIRTY_LOG_STREAM_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/address.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/managed_vm.h"

namespace mmud {

// The checked request. Pages count from the slot's start.
struct DirtyLogPlan {
  uint32_t slot = 0;
  mmu::Gpa slot_start;
  uint64_t first_page = 0;  // a multiple of 64
  uint64_t end_page = 0;
  v1::GetDirtyLogMode mode = v1::GET_DIRTY_LOG_MODE_PEEK;
  uint64_t epoch = 0;  // to send once more; 0: seal or peek
  v1::DirtyLogEncoding encoding = v1::DIRTY_LOG_ENCODING_AUTO;
  int64_t message_bytes = 0;
};

absl::StatusOr<DirtyLogPlan> PlanDirtyLog(const v1::GetDirtyLogRequest& request,
                                          const ManagedVm& vm);

// Sends chunks and the trailer of an epoch (0: peek). Reads a bounded piece,
// sends it, and so on; holds nothing while `write` runs. `write` is false when
// the caller left; `keep_going` is asked before each piece.
absl::Status SendDirtyPages(
    const DirtyLogPlan& plan, uint64_t epoch, ManagedVm& vm, mmu::MmuCost cost,
    const std::function<absl::Status()>& keep_going,
    const std::function<bool(const v1::GetDirtyLogResponse&)>& write);

}  // namespace mmud

#endif  // SERVER_SERVICES_DIRTY_LOG_STREAM_H_
