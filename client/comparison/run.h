// Runs the guests of a comparison.
//
// Each combination of the plan runs in a VM of its own:
//
//   1. populate: the vCPUs write to each page three times, so that huge
//   mappings
//      exist and the host's costs of new memory are over
//   2. the guest works at kLoadAccessesPerSecond from here until the log is on
//   3. LogPolicy::kThrottled: SplitHugePages with the plan's throttle
//   4. StartDirtyLog, with an eager split for LogPolicy::kEager only
//   5. pass: each vCPU accesses each page of its share of the memory once, at
//      full speed, so all memory that the guest writes becomes dirty
//   6. the numbers are read while the vCPUs are idle, and the VM is deleted
//
// With a repeat count above 1, the guest runs so often, each time in a new VM,
// and the result is the run with the median time of the pass.
//
// The accesses of a guest depend on the seed, the number of vCPUs and the share
// of writes, and not on the policy.

#ifndef CLIENT_COMPARISON_RUN_H_
#define CLIENT_COMPARISON_RUN_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/comparison/plan.h"
#include "client/comparison/result.h"
#include "client/mmu_client/client.h"

namespace mmud::client {

// Called at least every 500 ms, except during a single call, with the share of
// the plan that is done, 0 to 1, and the present step. If it returns an error,
// the comparison ends with this error.
using OnStep =
    absl::FunctionRef<absl::Status(double share, const std::string& words)>;

// Runs all combinations, one after the other. First checks what only the daemon
// knows: INVALID_ARGUMENT for more vCPUs than a VM can have, RESOURCE_EXHAUSTED
// for more memory than it can have, ALREADY_EXISTS if a VM has the name of one
// of the plan's. Errors: those of the calls, and DEADLINE_EXCEEDED if a step
// other than the pass has not ended within the plan's time limit. A pass that
// reaches the limit is no error. Its VM is deleted in each case.
absl::StatusOr<Comparison> RunComparison(Client& client, const Plan& plan,
                                         OnStep on_step);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_RUN_H_
