// The dirty log of a VM as its owner's commands see it: the token that is kept
// for a person, and who owns the log if there is none.

#ifndef CLIENT_MMUCTL_OWNED_LOG_H_
#define CLIENT_MMUCTL_OWNED_LOG_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/dirty_log_client.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/owner_lock.h"
#include "client/mmuctl/owner_store.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {

// The log as the daemon has it.
absl::StatusOr<v1::DirtyLog> GetLog(Client& client, const std::string& vm);

// What a person is called if they say nothing: "mmuctl of USER at HOST".
std::string DefaultOwner();

// To be held by a command that uses a token of this VM, from before it is read
// until its last call has returned. INVALID_ARGUMENT with the reason
// INVALID_NAME for a name that no VM has, as the daemon says it; ABORTED if
// another mmuctl holds it.
absl::StatusOr<OwnerLock> LockOwner(const Context& context,
                                    const std::string& vm);

// Makes `call` with the owner that is kept for the log of `vm`, and if that is
// not the log's owner, with the candidate of an earlier command whose answer
// was lost, which is kept from then on if it was the right one. Returns the
// owner whose call went well, or the error of `call`. If there is no token, or
// only one of a log that is gone, an error with the reason LOG_OWNED says who
// owns the log and since when; or why the daemon has no such log. Forgets what
// ForgetIfGone does. REQUIRES: LockOwner.
absl::StatusOr<StoredOwner> AsOwner(
    const Context& context, Client& client, const std::string& vm,
    absl::FunctionRef<absl::Status(const StoredOwner& owner)> call);

// The same for a call that is one of the service: `method` gets `request`,
// which names the VM, with the owner's token and the log's id. The answer is in
// `response`. REQUIRES: LockOwner.
template <typename Request, typename Response>
absl::StatusOr<StoredOwner> CallAsOwner(
    const Context& context, Client& client, Request& request,
    absl::StatusOr<Response> (DirtyLogClient::*method)(Request),
    absl::StatusOr<Response>* response) {
  return AsOwner(context, client, request.vm(), [&](const StoredOwner& owner) {
    request.set_owner_token(owner.token);
    request.set_log_id(owner.log_id);
    *response = (client.dirty_log().*method)(request);
    return response->status();
  });
}

// Forgets all tokens of the VM's log, which is gone. REQUIRES: LockOwner.
absl::Status ForgetOwner(const Context& context, const std::string& vm);

// Forgets the token of a log that `status`, of a call, says is gone: the VM is
// gone, or does not log, or has another log. A candidate goes with the VM only:
// without a log one may be starting whose token it is. Returns `status`.
// REQUIRES: LockOwner.
absl::Status ForgetIfGone(const Context& context, Client& client,
                          const std::string& vm, const absl::Status& status);

// Forgets all tokens of a VM that was deleted with `status`, or was not there
// any more. Makes no folder, and leaves alone what another mmuctl works with.
void ForgetDeletedVm(const Context& context, const std::string& vm,
                     const absl::Status& status);

// A token that is about to become the owner's. A value.
struct Candidate {
  StoredOwner owner;
  // Of an earlier command whose answer was lost: it may be the owner's already.
  bool reused = false;
};

enum class Reuse { kNo, kYes };

// A candidate of this owner, DefaultOwner() if that is "", which is kept until
// it is known what the daemon did. With `reuse` that of an earlier command, if
// there is one. REQUIRES: LockOwner.
absl::StatusOr<Candidate> NewCandidate(const Context& context,
                                       const std::string& vm,
                                       const std::string& owner, Reuse reuse);
// The candidate is the owner of the log with this id: its token is kept from
// now on. REQUIRES: LockOwner.
absl::Status KeepCandidate(const Context& context, const std::string& vm,
                           StoredOwner candidate, const std::string& log_id);
// The daemon refused the candidate: it is forgotten, unless it may be the
// owner's all the same, or become it. Forgets what ForgetIfGone does. Returns
// `status`; for LOG_OWNED with the owner in its message. REQUIRES: LockOwner.
absl::Status RefuseCandidate(const Context& context, Client& client,
                             const std::string& vm, const Candidate& candidate,
                             const absl::Status& status);

// Owner, lease, epochs and settings of a log, then its slots.
std::string ViewDirtyLog(const v1::DirtyLog& log);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNED_LOG_H_
