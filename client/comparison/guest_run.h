// The run of one combination: one guest under one policy.

#ifndef CLIENT_COMPARISON_GUEST_RUN_H_
#define CLIENT_COMPARISON_GUEST_RUN_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/comparison/plan.h"
#include "client/comparison/result.h"
#include "client/mmu_client/client.h"

namespace mmud::client {

// Called with the share of the combination that is done, 0 to 1, and the
// present step. An error ends the run.
using OnGuestStep =
    absl::FunctionRef<absl::Status(double share, const std::string& words)>;

// Makes the VM, runs the steps of run.h and deletes the VM, also after an
// error. Errors: those of RunComparison.
absl::StatusOr<CombinationResult> RunGuest(Client& client,
                                           const PlanOptions& options,
                                           const Combination& combination,
                                           OnGuestStep on_step);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_GUEST_RUN_H_
