#include "client/mmuctl/owned_log.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/owner_lock.h"
#include "client/mmuctl/owner_store.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

// A LOG_OWNED error that names the owner and a command that needs no token.
// `why` follows the owner in the message; `facts` are further details from the
// daemon.
absl::Status OwnedBy(const Context& context, const v1::DirtyLog& log,
                     const std::string& vm, absl::string_view why,
                     const std::map<std::string, std::string>& facts) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message(absl::StrCat(
      "the dirty log of ", vm, " belongs to '", log.owner(), "' since ",
      FormatWallTime(FromProto(log.owner_since_time())), ", its lease ends ",
      FormatWallTime(FromProto(log.lease_expire_time())), why,
      "; to see its pages without a token: ",
      context.CommandLine(
          absl::StrCat("dirty-log peek ", absl::StripPrefix(vm, "vms/")))));
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(v1::LOG_OWNED));
  info.set_domain("mmud");
  info.mutable_metadata()->insert(facts.begin(), facts.end());
  (*info.mutable_metadata())["owner"] = log.owner();
  status.add_details()->PackFrom(info);
  google::rpc::ResourceInfo resource;
  resource.set_resource_type("mmud.v1.Vm");
  resource.set_resource_name(vm);
  status.add_details()->PackFrom(resource);
  return FromRpcStatus(status);
}

// Adds the log's owner to the message of `status`, whose reason is LOG_OWNED.
absl::Status WithOwner(const Context& context, Client& client,
                       const std::string& vm, const absl::Status& status,
                       absl::string_view why) {
  const absl::StatusOr<v1::DirtyLog> log = GetLog(client, vm);
  // Without the log's state the error stays as it is.
  if (!log.ok()) return status;
  return OwnedBy(context, *log, vm, why, ErrorInfoOf(status).metadata);
}

// The store of this user's tokens.
absl::StatusOr<OwnerStore> OpenStore(const Context& context) {
  return OwnerStore::FromEnvironment(context.CommandStart());
}

bool IsVmName(absl::string_view name) {
  return absl::ConsumePrefix(&name, "vms/") && !name.empty() &&
         name.size() <= 63 && name.front() != '-' && name.back() != '-' &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
         });
}

absl::Status InvalidName(const std::string& vm) {
  const std::string rule =
      absl::StrCat("vm is '", absl::CHexEscape(vm),
                   "'; it must have the form vms/{vm}, for example vms/alpha, "
                   "where {vm} is 1 to 63 of a-z, 0-9 and '-'");
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  status.set_message(rule);
  google::rpc::ErrorInfo info;
  info.set_reason(v1::ErrorReason_Name(v1::INVALID_NAME));
  info.set_domain("mmud");
  status.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("vm");
  bad.mutable_field_violations(0)->set_description(rule);
  status.add_details()->PackFrom(bad);
  return FromRpcStatus(status);
}

// True if the daemon said that the token is not that of the log's owner.
bool IsNotOwner(const absl::Status& status) {
  const v1::ErrorReason reason = ReasonOf(status);
  return reason == v1::LOG_OWNED || reason == v1::LOG_FENCED ||
         reason == v1::LOG_CHANGED;
}

// True if the VM does not exist any more. Its log is then gone too.
bool IsGone(v1::ErrorReason reason) {
  return reason == v1::VM_NOT_FOUND || reason == v1::VM_DELETED;
}

// True if the daemon may have carried out the request, or may still do so.
bool LeavesOpen(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return true;
    default:
      break;
  }
  // With these reasons a start may be in progress, perhaps with this token.
  const v1::ErrorReason reason = ReasonOf(status);
  return reason == v1::DIRTY_LOG_STARTING || reason == v1::DIRTY_LOG_OFF;
}

}  // namespace

absl::StatusOr<v1::DirtyLog> GetLog(Client& client, const std::string& vm) {
  v1::GetDirtyLogRequest request;
  request.set_vm(vm);
  auto response = client.dirty_log().GetDirtyLog(request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_dirty_log());
}

std::string DefaultOwner() {
  const char* user = std::getenv("USER");
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat(
      "mmuctl of ",
      user != nullptr ? std::string(user) : absl::StrCat("user ", geteuid()),
      " at ", host);
}

absl::StatusOr<OwnerLock> LockOwner(const Context& context,
                                    const std::string& vm) {
  if (!IsVmName(vm)) return InvalidName(vm);
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return store.status();
  return store->Lock(context.address, vm);
}

absl::StatusOr<StoredOwner> AsOwner(
    const Context& context, Client& client, const std::string& vm,
    absl::FunctionRef<absl::Status(const StoredOwner& owner)> call) {
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return store.status();
  const auto kept = store->Load(context.address, vm);
  if (!kept.ok()) return kept.status();
  const auto candidate = store->LoadCandidate(context.address, vm);
  if (!candidate.ok()) return candidate.status();

  absl::Status refusal;  // OK if no token is stored for this log
  if (kept->has_value()) {
    const absl::Status status = call(**kept);
    if (status.ok()) return **kept;
    if (!IsNotOwner(status)) return ForgetIfGone(context, client, vm, status);
    if (ReasonOf(status) == v1::LOG_CHANGED) {
      const absl::Status removed = store->Remove(context.address, vm);
      if (!removed.ok()) return removed;
    } else {
      refusal = status;
    }
  }
  if (candidate->has_value()) {
    const absl::Status status = call(**candidate);
    if (status.ok()) {
      const absl::StatusOr<v1::DirtyLog> log = GetLog(client, vm);
      // An error does no harm: the call has succeeded, and the candidate stays
      // stored as a candidate.
      if (log.ok()) {
        KeepCandidate(context, vm, **candidate, log->log_id()).IgnoreError();
      }
      return **candidate;
    }
    if (!IsNotOwner(status)) return ForgetIfGone(context, client, vm, status);
    if (refusal.ok()) refusal = status;
  }
  const std::string path = store->PathOf(context.address, vm);
  if (refusal.ok()) {
    const absl::StatusOr<v1::DirtyLog> log = GetLog(client, vm);
    if (!log.ok()) return log.status();
    return OwnedBy(
        context, *log, vm,
        absl::StrCat(", and the owner token of this log is not in ", path), {});
  }
  if (ReasonOf(refusal) != v1::LOG_OWNED) return refusal;
  return WithOwner(
      context, client, vm, refusal,
      absl::StrCat(", and the owner token in ", path, " is not that owner's"));
}

absl::Status ForgetOwner(const Context& context, const std::string& vm) {
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return store.status();
  absl::Status status = store->Remove(context.address, vm);
  status.Update(store->RemoveCandidate(context.address, vm));
  return status;
}

absl::Status ForgetIfGone(const Context& context, Client& client,
                          const std::string& vm, const absl::Status& status) {
  v1::ErrorReason reason = ReasonOf(status);
  // The daemon also returns this reason for a memslot that is not in the log.
  if (reason == v1::DIRTY_LOG_OFF) {
    reason = ReasonOf(GetLog(client, vm).status());
  }
  const bool vm_is_gone = IsGone(reason);
  if (!vm_is_gone && reason != v1::DIRTY_LOG_OFF && reason != v1::LOG_CHANGED) {
    return status;
  }
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return status;
  // A remaining file does no harm; the present error is more useful.
  store->Remove(context.address, vm).IgnoreError();
  // A candidate may be the token of a log that is starting.
  if (vm_is_gone) store->RemoveCandidate(context.address, vm).IgnoreError();
  return status;
}

void ForgetDeletedVm(const Context& context, const std::string& vm,
                     const absl::Status& status) {
  if (!status.ok() && !IsGone(ReasonOf(status))) return;
  for (const OwnerStore& store : OwnerStore::AllOfEnvironment()) {
    if (!store.Has(context.address, vm)) continue;
    // The command that holds the lock gets the same error from its own call.
    const absl::StatusOr<OwnerLock> lock = store.Lock(context.address, vm);
    if (!lock.ok()) continue;
    store.Remove(context.address, vm).IgnoreError();
    store.RemoveCandidate(context.address, vm).IgnoreError();
  }
}

absl::StatusOr<OwnerCandidate> NewCandidate(const Context& context,
                                            const std::string& vm,
                                            const std::string& owner,
                                            Reuse reuse) {
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return store.status();
  const auto earlier = store->LoadCandidate(context.address, vm);
  if (!earlier.ok()) return earlier.status();
  OwnerCandidate candidate;
  if (earlier->has_value() && reuse == Reuse::kYes) {
    candidate.reused = true;
    candidate.owner = **earlier;
    if (!owner.empty()) candidate.owner.owner = owner;
  } else {
    candidate.owner.token = NewOwnerToken();
    candidate.owner.owner = owner.empty() ? DefaultOwner() : owner;
  }
  if (absl::Status status =
          store->SaveCandidate(context.address, vm, candidate.owner);
      !status.ok()) {
    return status;
  }
  return candidate;
}

absl::Status KeepCandidate(const Context& context, const std::string& vm,
                           StoredOwner candidate, const std::string& log_id) {
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (!store.ok()) return store.status();
  candidate.log_id = log_id;
  if (absl::Status status = store->Save(context.address, vm, candidate);
      !status.ok()) {
    return status;
  }
  return store->RemoveCandidate(context.address, vm);
}

absl::Status RefuseCandidate(const Context& context, Client& client,
                             const std::string& vm,
                             const OwnerCandidate& candidate,
                             const absl::Status& status) {
  const absl::StatusOr<OwnerStore> store = OpenStore(context);
  if (store.ok() && !candidate.reused && !LeavesOpen(status)) {
    // A remaining file does no harm; the present error is more useful.
    store->RemoveCandidate(context.address, vm).IgnoreError();
  }
  if (ReasonOf(status) != v1::LOG_OWNED) {
    return ForgetIfGone(context, client, vm, status);
  }
  return WithOwner(context, client, vm, status, "");
}

std::string ViewDirtyLog(const v1::DirtyLog& log) {
  KeyValues values;
  values.Add("log", log.log_id());
  values.Add("owner",
             absl::StrCat(log.owner(), ", since ",
                          FormatWallTime(FromProto(log.owner_since_time()))));
  values.Add("lease",
             absl::StrCat(FormatTime(FromProto(log.lease())), ", until ",
                          FormatWallTime(FromProto(log.lease_expire_time()))));
  values.Add("epochs",
             absl::StrCat(
                 log.open_epoch(), " open",
                 log.sealed_epoch() > 0
                     ? absl::StrCat(", ", log.sealed_epoch(), " sealed")
                     : "",
                 log.epochs_in_flight_size() > 0
                     ? absl::StrCat(
                           ", ", absl::StrJoin(log.epochs_in_flight(), " and "),
                           " in flight")
                     : ""));
  values.Add(
      "settings",
      absl::StrCat(
          ShortName(v1::DirtyLogMode_Name(log.mode()), "DIRTY_LOG_MODE_"),
          ", split ",
          ShortName(v1::DirtyLogSplit_Name(log.split()), "DIRTY_LOG_SPLIT_"),
          log.initially_set() ? ", initially set" : "",
          log.log_new_memslots() ? "" : ", new memslots left out",
          log.has_ttl()
              ? absl::StrCat(", ttl ", FormatTime(FromProto(log.ttl())))
              : ""));
  Table table({{"SLOT", Align::kRight},
               {"OPEN", Align::kRight},
               {"SEALED", Align::kRight},
               {"IN FLIGHT", Align::kRight}});
  for (const v1::SlotDirtyLog& slot : log.slots()) {
    table.AddRow(
        {absl::StrCat(slot.slot()),
         slot.has_open_page_count() ? FormatCount(slot.open_page_count()) : "-",
         FormatCount(slot.sealed_page_count()),
         FormatCount(slot.in_flight_page_count())});
  }
  return absl::StrCat(values.ToString(), "\n", table.ToString());
}

}  // namespace mmud::client
