// Converts mmud.v1.UpdateVmRequest to the changes that it requests.

#ifndef SERVER_CONVERT_VM_UPDATE_H_
#define SERVER_CONVERT_VM_UPDATE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/labels.h"

namespace mmud {

// The changes of an update.
struct VmUpdate {
  absl::optional<Labels> labels;
  // At most one of these: no VM has both.
  absl::optional<uint64_t> shadow_page_limit;
  absl::optional<uint64_t> eager_split_chunk_bytes;
};

// Errors: INVALID_UPDATE_MASK, and the errors of the fields that the mask
// names.
absl::StatusOr<VmUpdate> ToUpdate(const v1::UpdateVmRequest& request);

}  // namespace mmud

#endif  // SERVER_CONVERT_VM_UPDATE_H_
