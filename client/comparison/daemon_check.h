// Checks a plan against the daemon, before any guest runs.

#ifndef CLIENT_COMPARISON_DAEMON_CHECK_H_
#define CLIENT_COMPARISON_DAEMON_CHECK_H_

#include "absl/status/status.h"
#include "client/comparison/plan.h"
#include "client/mmu_client/client.h"

namespace mmud::client {

// OK if the daemon can make each VM of the plan: INVALID_ARGUMENT for more
// vCPUs than a VM can have, RESOURCE_EXHAUSTED for more memory than is left,
// ALREADY_EXISTS if a VM has the name of one of the plan's. Otherwise the
// errors of the calls.
absl::Status CheckDaemon(Client& client, const Plan& plan);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_DAEMON_CHECK_H_
