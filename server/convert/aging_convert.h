// Converts between mmud.v1's messages about aging and the values of
// server/control/age_ranges.h.

#ifndef SERVER_CONVERT_AGING_CONVERT_H_
#define SERVER_CONVERT_AGING_CONVERT_H_

#include "absl/status/statusor.h"
#include "mmud/v1/aging_service.pb.h"
#include "server/control/age_ranges.h"
#include "server/control/managed_vm.h"

namespace mmud {

// Converts everything but `vm` and `request_id`. INVALID_AGING_MODE,
// INVALID_ENUM_VALUE, INVALID_PAGE_SIZE, UNALIGNED, TOO_MANY_PAGES, and the
// errors of ToRangesOfVm.
absl::StatusOr<AgePlan> ToAgePlan(const v1::AgeRangeRequest& request,
                                  const ManagedVm& vm);

// `aged` is the result of `plan` on `vm`.
v1::AgeRangeResponse ToResponse(const ManagedVm& vm, const AgePlan& plan,
                                AgedRanges aged);

}  // namespace mmud

#endif  // SERVER_CONVERT_AGING_CONVERT_H_
