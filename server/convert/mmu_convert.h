// Converts between mmu_core's configuration and the part of mmud.v1.Vm that
// selects the tables that vCPUs run on.

#ifndef SERVER_CONVERT_MMU_CONVERT_H_
#define SERVER_CONVERT_MMU_CONVERT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud {

// Returns the limit on shadow pages in the request's field `field`. An error
// with `reason` if it is negative. mmu_core checks the minimum.
absl::StatusOr<uint64_t> ToShadowPageLimit(int32_t limit,
                                           absl::string_view field,
                                           mmu::Reason reason);

// Returns the size of the pieces of an eager split in the request's field
// `field`. INVALID_MMU_OPTION if it is negative. mmu_core checks the size.
absl::StatusOr<uint64_t> ToEagerSplitChunk(int64_t bytes,
                                           absl::string_view field);

// Sets the fields `mmu`, `guest_paging` and `shadow_page_limit` of `vm` in the
// configuration; `field` is the path of `vm` in the request. mmu_core checks
// which of them go together. INVALID_MMU_OPTION, INVALID_ENUM_VALUE,
// INVALID_PAGE_SIZE.
absl::Status ApplyMmu(const v1::Vm& vm, absl::string_view field,
                      mmu::VmConfig* config);

// Converts an error of mmu_core about values that ApplyMmu set for `vm`: it
// then names the field of CreateVmRequest with the wrong value.
absl::Status InMmuFields(const absl::Status& status, const v1::Vm& vm);

// The reverse of ApplyMmu, with every default filled in. Leaves out what can
// change: the limit of shadow pages and the chunk of eager splits.
void FillMmu(const mmu::VmConfig& config, v1::Vm* vm);

// The name of the field that is set in `vm.mmu`; "mmu" if none is.
std::string MmuName(const v1::Vm& vm);

}  // namespace mmud

#endif  // SERVER_CONVERT_MMU_CONVERT_H_
