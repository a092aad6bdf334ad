// The calls of a dirty log's owner, which a unary call makes one by one and a
// harvest on one stream.

#ifndef SERVER_CONTROL_DIRTY_LOG_CALLS_H_
#define SERVER_CONTROL_DIRTY_LOG_CALLS_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/managed_vm.h"
#include "server/convert/dirty_log_codec.h"

namespace mmud {

// An epoch in a request, which is not negative; 0 may be one, too. NOT_FOUND
// EPOCH_UNKNOWN of `field`.
absl::StatusOr<uint64_t> ToEpoch(int64_t epoch, const char* field);

absl::StatusOr<v1::SealDirtyLogResponse> Seal(ManagedVm& vm,
                                              const mmu::LogCall& call,
                                              int64_t acknowledged_epoch);

// Clears step by step. `keep_going` is asked before each step, its error is
// returned, and `part_done` is called after each: a caller that leaves in
// between has cleared a part, which it can safely ask for again.
struct ClearCalls {
  std::function<absl::Status()> keep_going;
  std::function<void()> part_done;
};
absl::StatusOr<v1::ClearDirtyLogResponse> Clear(ManagedVm& vm,
                                                const mmu::LogCall& call,
                                                int64_t epoch,
                                                const NamedPages& pages,
                                                const ClearCalls& calls);

// `pages` may be null: all.
absl::StatusOr<v1::AcknowledgePagesResponse> Acknowledge(
    ManagedVm& vm, const mmu::LogCall& call, int64_t epoch,
    const NamedPages* pages);

// The pages that a request names, of a memslot of `vm`. Also INVALID_SLOT and
// MEMSLOT_NOT_FOUND.
absl::StatusOr<NamedPages> FindPages(const v1::SlotPages& pages,
                                     const ManagedVm& vm);

}  // namespace mmud

#endif  // SERVER_CONTROL_DIRTY_LOG_CALLS_H_
