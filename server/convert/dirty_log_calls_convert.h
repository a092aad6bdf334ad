// Between mmud.v1's messages of a dirty log's owner and what
// server/control/dirty_log_calls.h takes and returns.

#ifndef SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_calls.h"
#include "server/control/managed_vm.h"
#include "server/control/named_pages.h"

namespace mmud {

// An epoch in a request, which is not negative; 0 may be one, too. NOT_FOUND
// EPOCH_UNKNOWN of `field`, about `vm`.
absl::StatusOr<uint64_t> ToEpoch(int64_t epoch, const char* field,
                                 const ManagedVm& vm);
// The epoch to be cleared: ABORTED EPOCH_MISMATCH, about `vm`.
absl::StatusOr<uint64_t> ToClearEpoch(int64_t epoch, const ManagedVm& vm);

// The pages that the field `pages` of a request names, of a memslot of `vm`.
// INVALID_SLOT, MEMSLOT_NOT_FOUND, and the errors of DecodeSlotPages.
absl::StatusOr<NamedPages> FindPages(const v1::SlotPages& pages,
                                     const ManagedVm& vm);

v1::SealDirtyLogResponse ToResponse(const SealedLog& sealed);
v1::ClearDirtyLogResponse ToResponse(const ClearedPages& cleared);
v1::AcknowledgePagesResponse ToResponse(const mmu::AcknowledgeResult& result);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_
