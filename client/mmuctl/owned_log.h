// The dirty log of a VM for commands of its owner: uses the stored token, and
// reports the log's owner if there is none.

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

// The default name of an owner: "mmuctl of USER at HOST".
std::string DefaultOwner();

// Lock for a command that uses a token of this VM. Hold it from before the
// token is read until the command's last call has returned. INVALID_ARGUMENT
// with the reason INVALID_NAME and the daemon's text for a malformed name;
// ABORTED if another mmuctl holds the lock.
absl::StatusOr<OwnerLock> LockOwner(const Context& context,
                                    const std::string& vm);

// Makes `call` with the stored owner of the log of `vm`. If that is not the
// log's owner, makes it again with the candidate of an earlier command whose
// answer was lost; a candidate that succeeds becomes the stored owner. Returns
// the owner whose call succeeded, or the error of `call`. If there is no token,
// or only one of a log that is gone, returns an error with the reason LOG_OWNED
// that names the owner and the start of its ownership, or the daemon's error if
// there is no log. Removes tokens as ForgetIfGone does. REQUIRES: LockOwner.
absl::StatusOr<StoredOwner> AsOwner(
    const Context& context, Client& client, const std::string& vm,
    absl::FunctionRef<absl::Status(const StoredOwner& owner)> call);

// The same for one call of the service. `request` names the VM; the owner's
// token and the log's id are added to it. The answer is in `response`.
// REQUIRES: LockOwner.
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

// Removes all tokens of the VM's log, which is gone. REQUIRES: LockOwner.
absl::Status ForgetOwner(const Context& context, const std::string& vm);

// Removes the token if `status` of a call says that its log is gone: the VM is
// gone, has no log, or has another log. Removes a candidate only if the VM is
// gone, since a log with the candidate's token may be starting. Returns
// `status`. REQUIRES: LockOwner.
absl::Status ForgetIfGone(const Context& context, Client& client,
                          const std::string& vm, const absl::Status& status);

// Removes all tokens of a VM if `status` says that it was deleted or did not
// exist. Makes no folder, and does not touch tokens that another mmuctl uses.
void ForgetDeletedVm(const Context& context, const std::string& vm,
                     const absl::Status& status);

// A token that may become the owner's. A value.
struct OwnerCandidate {
  StoredOwner owner;
  // True for a token of an earlier command whose answer was lost: it may
  // already be the owner's.
  bool reused = false;
};

enum class Reuse { kNo, kYes };

// Makes a candidate with this owner's name, DefaultOwner() if it is "", and
// stores it until the result of the call is known. With `reuse` returns the
// candidate of an earlier command, if there is one. REQUIRES: LockOwner.
absl::StatusOr<OwnerCandidate> NewCandidate(const Context& context,
                                            const std::string& vm,
                                            const std::string& owner,
                                            Reuse reuse);
// The candidate is the owner of the log with this id: stores its token as the
// owner's. REQUIRES: LockOwner.
absl::Status KeepCandidate(const Context& context, const std::string& vm,
                           StoredOwner candidate, const std::string& log_id);
// The daemon refused the candidate: removes it, unless it may be or become the
// owner's token nevertheless. Removes tokens as ForgetIfGone does. Returns
// `status`; for LOG_OWNED with the owner in its message. REQUIRES: LockOwner.
absl::Status RefuseCandidate(const Context& context, Client& client,
                             const std::string& vm,
                             const OwnerCandidate& candidate,
                             const absl::Status& status);

// Owner, lease, epochs and settings of a log, then its slots.
std::string ViewDirtyLog(const v1::DirtyLog& log);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_OWNED_LOG_H_
