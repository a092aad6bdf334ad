#include "client/text/error_text.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/error_info.h"
#include "client/text/message_json.h"
#include "client/text/units.h"
#include "mmud/v1/error_reasons.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

// Marks a status as a usage error.
constexpr char kUsagePayload[] = "mmud.client/usage";

// Stands for the VM in a fix.
constexpr char kVm[] = "{VM}";
// Begins each command line in a fix.
constexpr char kMmuctl[] = "mmuctl ";

// The fix for each reason: what a person can do about the error.
const std::map<v1::ErrorReason, std::string>& Fixes() {
  static const auto* const fixes = new std::map<v1::ErrorReason, std::string>{
      {v1::VM_NOT_FOUND, "list the VMs: mmuctl vm list"},
      {v1::VM_EXISTS,
       "use another name, or delete {VM} first: mmuctl vm delete {VM}"},
      {v1::MEMSLOT_NOT_FOUND, "show the VM's memslots: mmuctl vm get {VM}"},
      {v1::REGION_OVERLAP, "show the VM's memslots: mmuctl vm get {VM}"},
      {v1::MEMSLOT_IMMUTABLE,
       "delete the memslot and create it again: mmuctl memslot delete {VM} "
       "SLOT"},
      {v1::UNALIGNED, "use multiples of 4KiB"},
      {v1::UNALIGNED_CLEAR, "use multiples of 64 pages (256KiB)"},
      {v1::GPA_OUT_OF_RANGE, "show the VM's memslots: mmuctl vm get {VM}"},
      {v1::WORKLOAD_NOT_FOUND, "list the workloads: mmuctl workload list"},
      {v1::OPERATION_NOT_FOUND, "list the operations: mmuctl op list"},
      {v1::OPERATION_RUNNING,
       "wait for the operation or cancel it: mmuctl op list; mmuctl op cancel "
       "NAME; or stop a running workload: mmuctl workload stop {VM}"},
      {v1::OPERATION_DONE, "read the operation's result: mmuctl op get NAME"},
      {v1::WORKLOAD_RUNNING,
       "stop the workload first: mmuctl workload stop {VM}"},
      {v1::WORKLOAD_NOT_RUNNING,
       "start a workload: mmuctl workload start {VM} ..."},
      {v1::TRACE_NOT_FOUND,
       "put the file into the daemon's --trace-dir; names are relative to it"},
      {v1::TRACE_CORRUPT,
       "find the damage with mmuctl trace info FILE, and copy or record the "
       "file again"},
      {v1::DIRTY_LOG_OFF,
       "list the logged memslots: mmuctl dirty-log get {VM}; see whether a "
       "start is running: mmuctl op list --vm {VM}; switch logging on: mmuctl "
       "dirty-log start {VM}"},
      {v1::DIRTY_LOG_ACTIVE,
       "show the log's owner: mmuctl dirty-log get {VM}; continue with a log "
       "of yours: mmuctl dirty-log acquire {VM}; or switch the log off: mmuctl "
       "dirty-log stop {VM}"},
      {v1::DIRTY_LOG_STARTING, "wait for the start: mmuctl op list --vm {VM}"},
      {v1::UNDELIVERED_PAGES,
       "if pages in flight were not copied, seal them again first, even in "
       "your own log: mmuctl dirty-log acquire {VM} --force; as the log's "
       "owner, pause the guest (mmuctl vm pause {VM}), harvest (mmuctl "
       "dirty-log harvest {VM}), copy, acknowledge (mmuctl dirty-log ack {VM}) "
       "and try again; if you do not need the pages, or do not own the log, "
       "discard them with --discard (vm delete: --force)"},
      {v1::LOG_OWNED,
       "see the pages without a token: mmuctl dirty-log peek {VM}; take the "
       "log over: mmuctl dirty-log acquire {VM}, with --force while the "
       "owner's lease lasts"},
      {v1::LOG_FENCED,
       "another owner has taken the log over: stop copying; see the pages "
       "without a token: mmuctl dirty-log peek {VM}; take the log back: mmuctl "
       "dirty-log acquire {VM}, with --force while the owner's lease lasts"},
      {v1::LOG_CHANGED,
       "show the present log: mmuctl dirty-log get {VM}; if it is yours, "
       "acquire it: mmuctl dirty-log acquire {VM}"},
      {v1::EPOCH_MISMATCH,
       "only the newest sealed epoch can be cleared: mmuctl dirty-log harvest "
       "{VM}"},
      {v1::EPOCH_SUPERSEDED,
       "read the newest sealed epoch, which includes this one: mmuctl "
       "dirty-log read {VM}"},
      {v1::EPOCH_UNKNOWN, "show the log's epochs: mmuctl dirty-log get {VM}"},
      {v1::ETAG_MISMATCH,
       "the resource has changed: read it again and use its new etag"},
      {v1::SPLIT_RUNNING,
       "wait for the running one or cancel it: mmuctl op list; mmuctl split "
       "cancel NAME"},
      {v1::NO_CONTENTS, "use a memslot whose backing is not metadata-only"},
      {v1::RESOURCE_EXHAUSTED_MEMORY, "use less memory, or delete a VM"},
      {v1::LIMIT_EXCEEDED, "show the limits: mmuctl capabilities"},
      {v1::INVALID_VCPU_COUNT, "show the limits: mmuctl capabilities"},
      {v1::DRAINING,
       "the daemon is shutting down; try again when it has been started again"},
      {v1::INSUFFICIENT_HISTORY, "try again a little later"},
      {v1::FAST_AGING_UNAVAILABLE,
       "examine that MMU as well, with --may-lock; or leave it out, without "
       "--fast-or-fail"},
      {v1::NO_GENERATION,
       "make a generation: mmuctl generation {VM}; or let the ager make them: "
       "mmuctl ager {VM} --on"},
      {v1::GENERATION_RUNNING,
       "wait for the generation: mmuctl op list --vm {VM}; or switch the ager "
       "off: mmuctl ager {VM} --off"},
      {v1::DEBUG_DISABLED, "start the daemon with --enable-debug-service"},
  };
  return *fixes;
}

// The id of the VM in the error's resource name; "VM" if the error names no VM.
std::string VmOf(const ErrorInfo& info) {
  absl::string_view id = info.resource_name;
  if (!absl::ConsumePrefix(&id, "vms/")) return "VM";
  id = id.substr(0, id.find('/'));
  const bool is_id =
      !id.empty() && std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
      });
  return is_id ? std::string(id) : "VM";
}

// A fix for the error's reason as in the table, with its placeholders; "" if
// there is none.
std::string FixOfReason(const ErrorInfo& info) {
  // This is a limit of the log, not one of the daemon's limits.
  if (const auto limit = info.metadata.find("limit");
      ReasonOf(info) == v1::LIMIT_EXCEEDED && limit != info.metadata.end() &&
      limit->second == "epochs_in_flight") {
    return "acknowledge the copied pages: mmuctl dirty-log ack {VM}; or seal "
           "all pages in flight again: mmuctl dirty-log acquire {VM} --force";
  }
  const auto it = Fixes().find(ReasonOf(info));
  return it != Fixes().end() ? it->second : "";
}

std::string FixFor(const absl::Status& status, const ErrorInfo& info,
                   const std::string& address, const std::string& mmuctl) {
  const std::string fix = FixOfReason(info);
  if (!fix.empty()) {
    return absl::StrReplaceAll(
        fix, {{kMmuctl, absl::StrCat(mmuctl, " ")}, {kVm, VmOf(info)}});
  }
  if (absl::IsUnavailable(status) && info.reason.empty()) {
    return absl::StrCat(
        "is mmud running", address.empty() ? "" : " at " + address,
        "? Start it, with --listen=unix:/PATH for another address, and give "
        "the address with --address or MMUD_ADDRESS");
  }
  if (absl::IsDeadlineExceeded(status)) {
    return "give it more time with --timeout";
  }
  if (absl::IsUnimplemented(status)) {
    return "this daemon does not serve that call: a debug service needs "
           "--enable-debug-service";
  }
  return "";
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

ExitCode ExitCodeFor(const absl::Status& status) {
  if (status.GetPayload(kUsagePayload).has_value()) return kExitUsage;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kExitRefused;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kExitConflict;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitTimeout;
    case absl::StatusCode::kCancelled:
      return kExitCancelled;
    case absl::StatusCode::kResourceExhausted:
      return kExitExhausted;
    default:
      return kExitInternal;
  }
}

std::string ExitCodeHelp() {
  return "exit codes:\n"
         "   0  done\n"
         "   1  done, but the result is bad (a broken invariant, a failed "
         "program)\n"
         "   2  wrong command line; nothing was sent\n"
         "   3  the daemon refused a value\n"
         "   4  no such VM, memslot, workload, operation, trace or file\n"
         "   5  not in this state: exists already, still running, superseded\n"
         "   6  no daemon at that address, or it is shutting down\n"
         "   7  the deadline passed\n"
         "   8  the operation was cancelled\n"
         "   9  a limit is reached\n"
         "  10  internal error, or damaged data\n";
}

std::string RenderError(const absl::Status& status, const std::string& address,
                        const std::string& mmuctl) {
  const ErrorInfo info = ErrorInfoOf(status);
  std::string text = absl::StrCat(
      "error: ",
      info.message.empty()
          ? absl::AsciiStrToLower(absl::StatusCodeToString(status.code()))
          : info.message,
      "\n");
  const auto add = [&text](const char* key, const std::string& value) {
    if (!value.empty()) {
      absl::StrAppend(&text, "  ", key, ":",
                      std::string(8 - std::string(key).size(), ' '), value,
                      "\n");
    }
  };
  std::map<std::string, std::string> metadata = info.metadata;
  for (const FieldViolation& violation : info.field_violations) {
    add("field", violation.field);
    if (violation.rule != info.message) add("rule", violation.rule);
  }
  if (info.field_violations.empty()) add("field", metadata["field"]);
  metadata.erase("field");
  for (const std::string& precondition : info.preconditions) {
    if (precondition != info.message) add("needs", precondition);
  }
  if (!info.reason.empty()) {
    std::string rest = absl::StrJoin(metadata, ", ", absl::PairFormatter("="));
    if (!rest.empty()) rest = absl::StrCat(" (", rest, ")");
    add("reason", absl::StrCat(info.reason, rest));
  }
  if (info.retry_delay) {
    add("retry", absl::StrCat("in ", FormatTime(*info.retry_delay)));
  }
  add("fix", FixFor(status, info, address, mmuctl));
  return text;
}

Json ErrorJson(const absl::Status& status, const std::string& address,
               const std::string& mmuctl) {
  const ErrorInfo info = ErrorInfoOf(status);
  Json violations = Json::array();
  for (const FieldViolation& violation : info.field_violations) {
    violations.push_back(
        {{"field", violation.field}, {"rule", violation.rule}});
  }
  Json error = {{"code", absl::StatusCodeToString(status.code())},
                {"exit_code", static_cast<int>(ExitCodeFor(status))},
                {"message", info.message},
                {"reason", info.reason},
                {"metadata", Json(info.metadata.empty() ? Json::object()
                                                        : Json(info.metadata))},
                {"field_violations", std::move(violations)},
                {"preconditions", info.preconditions},
                {"resource_name", info.resource_name},
                {"retry_delay", nullptr},
                {"fix", FixFor(status, info, address, mmuctl)}};
  if (info.retry_delay)
    error["retry_delay"] = DurationToJson(*info.retry_delay);
  return Json{{"error", std::move(error)}};
}

}  // namespace mmud::client
