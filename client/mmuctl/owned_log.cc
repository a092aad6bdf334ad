#include "client/mmuctl/owned_log.h"

#include <unistd.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/owner_token.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mmud::client {
namespace {

absl::Status NoTokenKept(const std::string& vm, const std::string& path,
                         const v1::DirtyLog& log) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message(absl::StrCat(
      "the dirty log of ", vm, " belongs to '", log.owner(), "' since ",
      ViewTimestamp(FromProto(log.owner_since_time())), ", its lease ends ",
      ViewTimestamp(FromProto(log.lease_expire_time())),
      ", and no owner token of it is kept in ", path));
  google::rpc::ErrorInfo info;
  info.set_reason("LOG_OWNED");
  info.set_domain("mmud");
  (*info.mutable_metadata())["owner"] = log.owner();
  status.add_details()->PackFrom(info);
  return FromRpcStatus(status);
}

}  // namespace

std::string DefaultOwner() {
  const char* user = std::getenv("USER");
  char host[256] = "";
  if (gethostname(host, sizeof(host) - 1) != 0) host[0] = '\0';
  return absl::StrCat(
      "mmuctl of ",
      user != nullptr ? std::string(user) : absl::StrCat("user ", geteuid()),
      " at ", host);
}

absl::StatusOr<StoredOwner> LoadOwner(const Context& context, Client& client,
                                      const std::string& vm) {
  const absl::StatusOr<OwnerStore> store = OwnerStore::FromEnvironment();
  if (!store.ok()) return store.status();
  absl::StatusOr<std::optional<StoredOwner>> owner =
      store->Load(context.address, vm);
  if (owner.ok() && !owner->has_value()) {
    // A start or a takeover whose answer was lost.
    owner = store->LoadCandidate(context.address, vm);
  }
  if (!owner.ok()) return owner.status();
  if (owner->has_value()) return **std::move(owner);
  v1::GetDirtyLogRequest request;
  request.set_vm(vm);
  const auto log = client.dirty_log().GetDirtyLog(request);
  if (!log.ok()) return log.status();
  return NoTokenKept(vm, store->PathOf(context.address, vm), log->dirty_log());
}

absl::StatusOr<StoredOwner> NewCandidate(const Context& context,
                                         const std::string& vm,
                                         const std::string& owner) {
  const absl::StatusOr<OwnerStore> store = OwnerStore::FromEnvironment();
  if (!store.ok()) return store.status();
  const absl::StatusOr<std::optional<StoredOwner>> candidate =
      store->LoadCandidate(context.address, vm);
  if (!candidate.ok()) return candidate.status();
  StoredOwner made;
  made.token = candidate->has_value() ? (*candidate)->token : NewOwnerToken();
  made.owner = owner.empty() ? DefaultOwner() : owner;
  if (absl::Status status = store->SaveCandidate(context.address, vm, made);
      !status.ok()) {
    return status;
  }
  return made;
}

absl::Status KeepCandidate(const Context& context, const std::string& vm,
                           StoredOwner candidate, const v1::DirtyLog& log) {
  const absl::StatusOr<OwnerStore> store = OwnerStore::FromEnvironment();
  if (!store.ok()) return store.status();
  candidate.log_id = log.log_id();
  if (absl::Status status = store->Save(context.address, vm, candidate);
      !status.ok()) {
    return status;
  }
  return store->RemoveCandidate(context.address, vm);
}

absl::Status DropCandidate(const Context& context, const std::string& vm,
                           const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return status;
    default:
      break;
  }
  const absl::StatusOr<OwnerStore> store = OwnerStore::FromEnvironment();
  // That the file stays does no harm; the error at hand says more.
  if (store.ok()) store->RemoveCandidate(context.address, vm).IgnoreError();
  return status;
}

std::string ViewDirtyLog(const v1::DirtyLog& log) {
  KeyValues values;
  values.Add("log", log.log_id());
  values.Add("owner",
             absl::StrCat(log.owner(), ", since ",
                          ViewTimestamp(FromProto(log.owner_since_time()))));
  values.Add("lease",
             absl::StrCat(FormatTime(FromProto(log.lease())), ", until ",
                          ViewTimestamp(FromProto(log.lease_expire_time()))));
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
