// Reads one sample of a daemon.

#ifndef CLIENT_TOP_READ_SAMPLE_H_
#define CLIENT_TOP_READ_SAMPLE_H_

#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/top/sample.h"

namespace mmud::client {

// Reads all VMs, their statistics, their dirty logs and the running operations.
// That is one call each of GetBuildInfo, ListVms, GetMmuStats and
// ListOperations (more if a list has several pages), and one GetDirtyLog for
// each VM whose log is on. None of them takes mmu_lock, needs an owner's token
// or renews a lease. GetDirtyLog counts the open pages, so it waits for the end
// of a running seal. A VM that is deleted between two of the calls, or whose
// log is stopped, is no error. Returns the error of the first call that fails.
absl::StatusOr<TopSample> ReadSample(Client& client);

}  // namespace mmud::client

#endif  // CLIENT_TOP_READ_SAMPLE_H_
