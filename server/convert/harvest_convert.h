// Converts mmud.v1's message that opens a harvest to the stream's parameters.

#ifndef SERVER_CONVERT_HARVEST_CONVERT_H_
#define SERVER_CONVERT_HARVEST_CONVERT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "server/convert/dirty_log_stream_convert.h"

namespace mmud {

struct HarvestCall {
  mmu::LogCall call;
  ChunkForm form;
  size_t window = 0;            // maximum of sent chunks not cleared yet
  std::vector<uint32_t> slots;  // ascending; empty: all
};

// Converts everything but `vm`; errors name the fields of a message's `open`.
// INVALID_OWNER_TOKEN, INVALID_LOG_ID, INVALID_RANGE, INVALID_SLOT, and the
// errors of ToChunkForm.
absl::StatusOr<HarvestCall> ToHarvestCall(const v1::HarvestOpen& open);

}  // namespace mmud

#endif  // SERVER_CONVERT_HARVEST_CONVERT_H_
