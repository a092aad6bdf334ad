// Converts between mmud.v1's messages of a dirty log's owner and the values of
// server/control/dirty_log_calls.h.

#ifndef SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_
#define SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/control/dirty_log_calls.h"

namespace mmud {

// An epoch in a request. A negative one is none of any log, as mmu_core says.
inline uint64_t ToEpoch(int64_t epoch) { return static_cast<uint64_t>(epoch); }

// An error of Clear or Acknowledge, about the field of `pages` that is to
// blame.
absl::Status InPagesFields(absl::Status status);

v1::SealDirtyLogResponse ToResponse(const SealedLog& sealed);
v1::ClearDirtyLogResponse ToResponse(const ClearedPages& cleared);
v1::AcknowledgePagesResponse ToResponse(const mmu::AcknowledgeResult& result);

}  // namespace mmud

#endif  // SERVER_CONVERT_DIRTY_LOG_CALLS_CONVERT_H_
