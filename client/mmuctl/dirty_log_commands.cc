// mmuctl dirty-log start, get, acquire, stop, rate.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/operations_client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/owned_log.h"
#include "client/mmuctl/owner_lock.h"
#include "client/mmuctl/owner_store.h"
#include "client/mmuctl/views.h"
#include "client/mmuctl/watch.h"
#include "client/text/error_text.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

struct StartArguments {
  v1::StartDirtyLogRequest request;
  std::vector<int32_t> slots;
  std::string owner;
  absl::Duration lease = absl::ZeroDuration();
  bool initially_set = false;
  bool leave_new_memslots_out = false;
  v1::DirtyLogMode mode = v1::DIRTY_LOG_MODE_UNSPECIFIED;
  v1::DirtyLogSplit split = v1::DIRTY_LOG_SPLIT_UNSPECIFIED;
  absl::Duration ttl = absl::ZeroDuration();
  ThrottleArguments throttle;
};

absl::Status Start(Context& context, Client& client,
                   const StartArguments& arguments) {
  v1::StartDirtyLogRequest request = arguments.request;
  for (const int32_t slot : arguments.slots) request.add_slots(slot);
  request.set_initially_set(arguments.initially_set);
  request.set_log_new_memslots(!arguments.leave_new_memslots_out);
  request.set_mode(arguments.mode);
  request.set_split(arguments.split);
  if (arguments.lease > absl::ZeroDuration()) {
    *request.mutable_lease() = ToProto(arguments.lease);
  }
  if (arguments.ttl > absl::ZeroDuration()) {
    *request.mutable_ttl() = ToProto(arguments.ttl);
  }
  if (!arguments.throttle.empty()) {
    arguments.throttle.ApplyTo(request.mutable_throttle());
  }
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, request.vm());
  if (!lock.ok()) return lock.status();
  const absl::StatusOr<OwnerCandidate> candidate =
      NewCandidate(context, request.vm(), arguments.owner, Reuse::kYes);
  if (!candidate.ok()) return candidate.status();
  request.set_owner(candidate->owner.owner);
  request.set_owner_token(candidate->owner.token);
  absl::StatusOr<Operation> operation =
      client.dirty_log().StartDirtyLog(request);
  if (operation.ok() && !operation->done()) {
    operation = AwaitOperation(context, operation->name());
    // The start continues, so the daemon may still accept this token as the
    // owner's.
    if (!operation.ok()) return operation.status();
  }
  const absl::StatusOr<v1::StartDirtyLogResponse> response =
      operation.ok() ? OperationResponse<v1::StartDirtyLogResponse>(*operation)
                     : operation.status();
  if (!response.ok()) {
    return RefuseCandidate(context, client, request.vm(), *candidate,
                           response.status());
  }
  if (absl::Status status =
          KeepCandidate(context, request.vm(), candidate->owner,
                        response->dirty_log().log_id());
      !status.ok()) {
    return status;
  }
  return context.Print(
      *response, absl::StrCat(ViewDirtyLog(response->dirty_log()), "split ",
                              ViewSplits(response->splits()), "; cost ",
                              ViewCost(response->cost()), "\n"));
}

absl::Status Get(Context& context, Client& client,
                 const v1::GetDirtyLogRequest& request) {
  const auto response = client.dirty_log().GetDirtyLog(request);
  if (!response.ok()) return response.status();
  return context.Print(*response, ViewDirtyLog(response->dirty_log()));
}

struct AcquireArguments {
  v1::AcquireDirtyLogRequest request;
  absl::Duration lease = absl::ZeroDuration();
};

// Fills in the name and the lease with which the owner holds the log, unless
// the request has them. A call without a lease would set the lease to 30 s.
void FillIn(const v1::DirtyLog& log, v1::AcquireDirtyLogRequest* request) {
  if (request->owner().empty()) request->set_owner(log.owner());
  if (!request->has_lease()) *request->mutable_lease() = log.lease();
}

// Renews the lease with the stored token. Returns nothing if there is no token,
// or if it is no longer the owner's.
absl::StatusOr<std::optional<v1::AcquireDirtyLogResponse>> Renew(
    Context& context, Client& client, v1::AcquireDirtyLogRequest request) {
  const absl::StatusOr<OwnerStore> store =
      OwnerStore::FromEnvironment(context.CommandStart());
  if (!store.ok()) return store.status();
  const absl::StatusOr<std::optional<StoredOwner>> kept =
      store->Load(context.address, request.vm());
  if (!kept.ok()) return kept.status();
  if (!kept->has_value()) return std::nullopt;
  const absl::StatusOr<v1::DirtyLog> log = GetLog(client, request.vm());
  if (!log.ok()) {
    return ForgetIfGone(context, client, request.vm(), log.status());
  }
  FillIn(*log, &request);
  request.set_owner_token((*kept)->token);
  request.set_log_id((*kept)->log_id);
  auto response = client.dirty_log().AcquireDirtyLog(request);
  if (response.ok()) return *std::move(response);
  const v1::ErrorReason reason = ReasonOf(response.status());
  if (reason == v1::LOG_CHANGED) {
    const absl::Status removed = store->Remove(context.address, request.vm());
    if (!removed.ok()) return removed;
    return std::nullopt;
  }
  if (reason == v1::LOG_FENCED || reason == v1::LOG_OWNED) return std::nullopt;
  return ForgetIfGone(context, client, request.vm(), response.status());
}

// Acquires the log with a candidate. With `reuse` the candidate of an earlier
// command is taken if there is one.
absl::StatusOr<v1::AcquireDirtyLogResponse> TakeOver(
    Context& context, Client& client, v1::AcquireDirtyLogRequest request,
    Reuse reuse) {
  const absl::StatusOr<OwnerCandidate> candidate =
      NewCandidate(context, request.vm(), request.owner(), reuse);
  if (!candidate.ok()) return candidate.status();
  request.set_owner(candidate->owner.owner);
  request.set_owner_token(candidate->owner.token);
  if (candidate->reused) {
    // The candidate's token may already be the owner's.
    const absl::StatusOr<v1::DirtyLog> log = GetLog(client, request.vm());
    if (log.ok() && log->owner() == request.owner()) FillIn(*log, &request);
  }
  auto response = client.dirty_log().AcquireDirtyLog(request);
  if (response.ok()) {
    const absl::Status kept =
        KeepCandidate(context, request.vm(), candidate->owner,
                      response->dirty_log().log_id());
    if (!kept.ok()) return kept;
    return response;
  }
  // A fenced token was the owner's once and is refused for good.
  if (candidate->reused && ReasonOf(response.status()) == v1::LOG_FENCED) {
    return TakeOver(context, client, std::move(request), Reuse::kNo);
  }
  return RefuseCandidate(context, client, request.vm(), *candidate,
                         response.status());
}

absl::Status PrintAcquired(Context& context,
                           const v1::AcquireDirtyLogResponse& response) {
  return context.Print(
      response,
      absl::StrCat(ViewDirtyLog(response.dirty_log()),
                   response.already_owned() ? "you owned the log already\n"
                                            : "taken over: the pages that were "
                                              "in flight are sealed again\n"));
}

absl::Status Acquire(Context& context, Client& client,
                     const AcquireArguments& arguments) {
  v1::AcquireDirtyLogRequest request = arguments.request;
  if (arguments.lease > absl::ZeroDuration()) {
    *request.mutable_lease() = ToProto(arguments.lease);
  }
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, request.vm());
  if (!lock.ok()) return lock.status();
  if (!request.force()) {
    const auto renewed = Renew(context, client, request);
    if (!renewed.ok()) return renewed.status();
    if (renewed->has_value()) return PrintAcquired(context, **renewed);
  }
  // A forced takeover seals the pages in flight again; the daemon does this
  // only for a new token.
  const auto response =
      TakeOver(context, client, std::move(request),
               arguments.request.force() ? Reuse::kNo : Reuse::kYes);
  if (!response.ok()) return response.status();
  return PrintAcquired(context, *response);
}

// True if the lock could not be taken because the folder cannot store tokens.
bool IsWithoutStore(const absl::Status& status) {
  return !absl::IsInvalidArgument(status) && !absl::IsAborted(status);
}

absl::Status Stop(Context& context, Client& client,
                  const v1::StopDirtyLogRequest& arguments) {
  v1::StopDirtyLogRequest request = arguments;
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, request.vm());
  // Stopping by force needs no token, so it works even if no token can be
  // stored.
  if (!lock.ok() && !(request.force() && IsWithoutStore(lock.status()))) {
    return lock.status();
  }
  absl::StatusOr<v1::StopDirtyLogResponse> response;
  if (request.force()) {
    response = client.dirty_log().StopDirtyLog(request);
  } else {
    const absl::StatusOr<StoredOwner> owner = CallAsOwner(
        context, client, request, &DirtyLogClient::StopDirtyLog, &response);
    if (!owner.ok()) return owner.status();
  }
  if (!response.ok()) {
    return lock.ok()
               ? ForgetIfGone(context, client, request.vm(), response.status())
               : response.status();
  }
  if (lock.ok()) {
    const absl::Status status = ForgetOwner(context, request.vm());
    if (!status.ok()) return status;
  }
  return context.Print(
      *response,
      absl::StrCat("discarded ", ViewUndelivered(response->discarded()),
                   "; made ", FormatCount(response->recovered_2m_count()),
                   " of 2M, ", FormatCount(response->recovered_1g_count()),
                   " of 1G; cost ", ViewCost(response->cost()), "\n"));
}

struct RateArguments {
  v1::GetDirtyRateRequest request;
  std::vector<std::string> windows;
};

absl::Status Rate(Context& context, Client& client,
                  const RateArguments& arguments) {
  v1::GetDirtyRateRequest request = arguments.request;
  for (const std::string& window : arguments.windows) {
    const absl::StatusOr<absl::Duration> time = ParseTime(window);
    if (!time.ok()) {
      return UsageError(absl::StrCat("--window: ", time.status().message()));
    }
    *request.add_windows() = ToProto(*time);
  }
  const auto response = client.dirty_log().GetDirtyRate(request);
  if (!response.ok()) return response.status();
  Table table({{"WINDOW", Align::kRight},
               {"OBSERVED", Align::kRight},
               {"PAGES/S", Align::kRight},
               {"BYTES/S", Align::kRight},
               {"WRITE FAULTS/S", Align::kRight},
               {"RING FULL", Align::kRight}});
  for (const v1::DirtyRate& rate : response->rates()) {
    table.AddRow(
        {FormatTime(FromProto(rate.window())),
         FormatTime(FromProto(rate.observed())),
         FormatCount(static_cast<int64_t>(rate.unique_pages_per_second())),
         FormatBytes(static_cast<int64_t>(rate.bytes_per_second())),
         FormatCount(static_cast<int64_t>(rate.write_faults_per_second())),
         FormatShare(rate.ring_full_ratio(), 1)});
    for (const v1::VcpuDirtyRate& vcpu : rate.vcpus()) {
      table.AddRow(
          {"", absl::StrCat("vCPU ", vcpu.vcpu()),
           FormatCount(static_cast<int64_t>(vcpu.unique_pages_per_second())),
           "",
           FormatCount(static_cast<int64_t>(vcpu.write_faults_per_second())),
           FormatShare(vcpu.ring_full_ratio(), 1)});
    }
  }
  return context.Print(*response, table.ToString());
}

void AddOwner(CLI::App* command, std::string* owner, absl::Duration* lease) {
  command->add_option("--owner", *owner,
                      "your name, which others see as the log's owner "
                      "(default: mmuctl of USER at HOST)");
  AddTime(command, "--lease", lease,
          "length of your lease, counted from your last command (default: 30s, "
          "or the present lease of a log that you own)");
}

void AddStart(CLI::App& group, Context& context) {
  auto start = std::make_shared<StartArguments>();
  CLI::App* command = AddCommand(
      group, "start",
      "Switches dirty logging on and makes you the log's owner. The owner's "
      "token is stored in $XDG_RUNTIME_DIR/mmuctl or ~/.cache/mmuctl.",
      "mmuctl dirty-log start alpha\n"
      "mmuctl dirty-log start alpha --owner \"move 17\" --lease 5m\n"
      "mmuctl dirty-log start alpha --initially-set --ttl 10m\n"
      "mmuctl dirty-log start alpha 0 1 --split none");
  AddVm(command, start->request.mutable_vm());
  AddSlots(command, &start->slots);
  AddOwner(command, &start->owner, &start->lease);
  command->add_flag("--initially-set", start->initially_set,
                    "all pages are dirty at the start; the first clear of a "
                    "page protects and splits it");
  AddChoice(command, "--mode", &start->mode,
            {{"bitmap", v1::DIRTY_LOG_MODE_BITMAP},
             {"ring", v1::DIRTY_LOG_MODE_RING}},
            "fail unless the VM logs in this way (default: the VM's way, see "
            "vm create --dirty-ring-entries)");
  AddChoice(command, "--split", &start->split,
            {{"none", v1::DIRTY_LOG_SPLIT_NONE},
             {"eager", v1::DIRTY_LOG_SPLIT_EAGER},
             {"on-clear", v1::DIRTY_LOG_SPLIT_ON_CLEAR}},
            "when huge mappings are split (default: eager, or on-clear with "
            "--initially-set)");
  AddTime(command, "--ttl", &start->ttl,
          "stop the log if its owner makes no call for this long");
  command->add_flag("--leave-new-memslots-out", start->leave_new_memslots_out,
                    "memslots that are created later do not join the log");
  AddThrottle(command, &start->throttle);
  Run(command, context, start, Start);
}

}  // namespace

void AddDirtyLogCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "dirty-log", "Logs the pages that the guest writes.",
               "mmuctl dirty-log start alpha\n"
               "mmuctl dirty-log get alpha\n"
               "mmuctl dirty-log peek alpha\n"
               "mmuctl dirty-log harvest alpha\n"
               "mmuctl dirty-log ack alpha\n"
               "mmuctl dirty-log rate alpha\n"
               "mmuctl dirty-log stop alpha --discard");
  AddStart(*group, context);

  auto get = std::make_shared<v1::GetDirtyLogRequest>();
  CLI::App* command = AddCommand(*group, "get",
                                 "Shows the log: its owner, its epochs and its "
                                 "page counts. Changes nothing.",
                                 "mmuctl dirty-log get alpha\n"
                                 "mmuctl dirty-log get alpha --count-open");
  AddVm(command, get->mutable_vm());
  command->add_flag_function(
      "--count-open", [get](int64_t) { get->set_count_open_pages(true); },
      "count the pages of the open epoch too");
  Run(command, context, get, Get);

  auto acquire = std::make_shared<AcquireArguments>();
  command = AddCommand(
      *group, "acquire",
      "Takes the log over if its owner's lease has ended; the pages in flight "
      "are sealed again. Renews the lease of a log that is yours.",
      "mmuctl dirty-log acquire alpha\n"
      "mmuctl dirty-log acquire alpha --force --owner \"move 17, again\"");
  AddVm(command, acquire->request.mutable_vm());
  AddOwner(command, acquire->request.mutable_owner(), &acquire->lease);
  command->add_flag_function(
      "--force", [acquire](int64_t) { acquire->request.set_force(true); },
      "take the log over even before the owner's lease ends, with a new token "
      "even if you are the owner");
  Run(command, context, acquire, Acquire);

  AddDirtyPageCommands(*group, context);

  auto stop = std::make_shared<v1::StopDirtyLogRequest>();
  command = AddCommand(*group, "stop", "Switches dirty logging off.",
                       "mmuctl dirty-log stop alpha --recover-huge-pages\n"
                       "mmuctl dirty-log stop alpha --discard");
  AddVm(command, stop->mutable_vm());
  command->add_flag_function(
      "--recover-huge-pages",
      [stop](int64_t) { stop->set_recover_huge_pages(true); },
      "recover huge mappings");
  command->add_flag_function(
      "--discard", [stop](int64_t) { stop->set_discard_undelivered(true); },
      "discard dirty pages that were not acknowledged: open, sealed and in "
      "flight");
  command->add_flag_function(
      "--force", [stop](int64_t) { stop->set_force(true); },
      "stop the log even if another owner has it");
  Run(command, context, stop, Stop);

  auto rate = std::make_shared<RateArguments>();
  command = AddCommand(
      *group, "rate", "Shows the rate at which the guest dirties pages.",
      "mmuctl dirty-log rate alpha\n"
      "mmuctl dirty-log rate alpha --window 500ms 5s --per-vcpu");
  AddVm(command, rate->request.mutable_vm());
  command
      ->add_option("--window", rate->windows,
                   "lengths of the time windows (default: 1s, 10s, 60s)")
      ->type_name("TIME")
      ->expected(1, 16);
  command->add_flag_function(
      "--per-vcpu", [rate](int64_t) { rate->request.set_per_vcpu(true); },
      "show the rates of each vCPU too");
  Run(command, context, rate, Rate);
}

}  // namespace mmud::client
