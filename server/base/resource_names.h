// Names of resources: `vms/{vm}`, `vms/{vm}/memslots/{slot}`,
// `vms/{vm}/workloads/{uuid}`, `operations/{uuid}`, and the tokens of paged
// lists.

#ifndef SERVER_BASE_RESOURCE_NAMES_H_
#define SERVER_BASE_RESOURCE_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "mmu_core/memory/region_request.h"

namespace mmud {

// The last id of a memslot. The core has the rule (SLOT-01).
inline constexpr uint32_t kMaxSlot = mmu::kUserMemslots - 1;

// Checks the id {vm}: 1 to 63 of a-z, 0-9 and '-', neither beginning nor ending
// with '-'. INVALID_NAME about `field`.
absl::Status CheckVmId(absl::string_view id, absl::string_view field);
absl::Status CheckVmName(absl::string_view name, absl::string_view field);
std::string VmName(absl::string_view id);

struct MemslotName {
  std::string vm;  // the VM's name
  uint32_t slot = 0;
};
absl::StatusOr<MemslotName> ParseMemslotName(absl::string_view name,
                                             absl::string_view field);
std::string MakeMemslotName(absl::string_view vm_name, uint32_t slot);

struct WorkloadName {
  std::string vm;    // the VM's name
  std::string name;  // in the daemon's spelling
};
absl::StatusOr<WorkloadName> ParseWorkloadName(absl::string_view name,
                                               absl::string_view field);
// A name for a new workload; it is never used twice.
std::string NewWorkloadName(absl::string_view vm_name);

// The name in the daemon's spelling. INVALID_NAME unless it is
// `operations/{uuid}`.
absl::StatusOr<std::string> ParseOperationName(absl::string_view name,
                                               absl::string_view field);
// A name for a new operation; it is never used twice.
std::string NewOperationName();

// Position at which a list continues: an opaque token around the last key that
// was sent. `list` tells the lists apart. INVALID_PAGE_TOKEN.
std::string MakePageToken(absl::string_view list, absl::string_view last_key);
absl::StatusOr<std::string> ParsePageToken(absl::string_view list,
                                           absl::string_view token);
// The key in the token of a list whose keys are numbers; nullopt: the first
// page.
absl::StatusOr<absl::optional<uint64_t>> ParseNumberToken(
    absl::string_view list, absl::string_view token);
// INVALID_PAGE_TOKEN unless `token` is empty: the request names one VM, which
// fits on one page.
absl::Status CheckOnePage(absl::string_view token);

// 0 becomes 100, more than 1000 becomes 1000. INVALID_PAGE_SIZE if negative.
absl::StatusOr<int> CheckPageSize(int32_t page_size);

}  // namespace mmud

#endif  // SERVER_BASE_RESOURCE_NAMES_H_
