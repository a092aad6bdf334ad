// Converts between mmud.v1's messages about aging and the values of
// server/control/age_ranges.h.

#ifndef SERVER_CONVERT_AGING_CONVERT_H_
#define SERVER_CONVERT_AGING_CONVERT_H_

#include <vector>

#include "absl/status/statusor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/control/age_ranges.h"

namespace mmud {

// Converts everything but `vm` and `request_id`. INVALID_AGING_MODE,
// INVALID_ENUM_VALUE, INVALID_PAGE_SIZE, UNALIGNED, TOO_MANY_PAGES, and the
// errors of ToRangesOfVm, which explains `slots`.
absl::StatusOr<AgePlan> ToAgePlan(const v1::AgeRangeRequest& request,
                                  const std::vector<mmu::MemslotInfo>& slots);

// `aged` is the result of `plan` on a VM that has `mmus`.
v1::AgeRangeResponse ToResponse(const std::vector<mmu::MmuKind>& mmus,
                                const AgePlan& plan, AgedRanges aged);

}  // namespace mmud

#endif  // SERVER_CONVERT_AGING_CONVERT_H_
