// The dirty log of a VM as its owner's commands see it: the token that is kept
// for a person, and who owns the log if there is none.

#ifndef CLIENT_MMUCTL_OWNED_LOG_H_
#define CLIENT_MMUCTL_OWNED_LOG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/owner_store.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// What a person is called if they say nothing: "mmuctl of USER at HOST".
std::string DefaultOwner();

// The owner that is kept for the log of `vm`. If none is, an error with the
// reason LOG_OWNED, which says who owns the log and since when; or why the
// daemon has no such log.
absl::StatusOr<StoredOwner> LoadOwner(const Context& context, Client& client,
                                      const std::string& vm);

// A new token of this owner, kept as a candidate; or the candidate of an
// earlier command whose answer was lost.
absl::StatusOr<StoredOwner> NewCandidate(const Context& context,
                                         const std::string& vm,
                                         const std::string& owner);
// The candidate is the owner of `log`: its token is kept from now on.
absl::Status KeepCandidate(const Context& context, const std::string& vm,
                           StoredOwner candidate, const v1::DirtyLog& log);
// The daemon refused the candidate: it is forgotten. Not if `status` leaves
// open what the daemon did. Returns `status`.
absl::Status DropCandidate(const Context& context, const std::string& vm,
                           const absl::Status& status);

// Owner, lease, epochs and settings of a log, then its slots.
std::string ViewDirtyLog(const v1::DirtyLog& log);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNED_LOG_H_
