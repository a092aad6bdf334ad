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

// The limit on shadow pages that a request names in `field`; `reason` if it is
// negative. How small it may be otherwise is left to mmu_core.
absl::StatusOr<uint64_t> ToShadowPageLimit(int32_t limit,
                                           absl::string_view field,
                                           mmu::Reason reason);

// Sets what `vm.mmu`, `vm.guest_paging` and `vm.shadow_page_limit` say; `field`
// is the path of `vm` in the request. Which of them go together is left to
// mmu_core.
// INVALID_MMU_OPTION, INVALID_ENUM_VALUE, INVALID_PAGE_SIZE.
absl::Status ApplyMmu(const v1::Vm& vm, absl::string_view field,
                      mmu::VmConfig* config);

// An error that mmu_core found in what ApplyMmu set for `vm`, about the field
// of CreateVmRequest that is to blame.
absl::Status InMmuFields(const absl::Status& status, const v1::Vm& vm);

// The same back, with every default filled in, but for the limit, which
// changes.
void FillMmu(const mmu::VmConfig& config, v1::Vm* vm);

// The name of the field that is set in `vm.mmu`; "mmu" if none is.
std::string MmuName(const v1::Vm& vm);

}  // namespace mmud

#endif  // SERVER_CONVERT_MMU_CONVERT_H_
