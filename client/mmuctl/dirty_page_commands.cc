// mmuctl dirty-log seal, read, peek, clear, ack, harvest: the commands that
// move a page from the guest's write to its acknowledgement.

#include <signal.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/error_info.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/interrupt.h"
#include "client/mmuctl/owned_log.h"
#include "client/mmuctl/owner_lock.h"
#include "client/mmuctl/owner_store.h"
#include "client/mmuctl/views.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/error_reasons.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

// A command line for people to copy: `mmuctl dirty-log COMMAND VM OPTIONS`.
std::string LogCommand(const Context& context, absl::string_view command,
                       const std::string& vm, absl::string_view options = "") {
  return context.CommandLine(absl::StrCat(
      "dirty-log ", command, " ", absl::StripPrefix(vm, "vms/"), options));
}

// Tells the owner what to do with pages in flight.
std::string AckHint(const Context& context, const std::string& vm,
                    int64_t epoch) {
  return absl::StrCat(
      "copy them now, then ",
      LogCommand(context, "ack", vm, absl::StrCat(" --epoch ", epoch)));
}

// The command that seals all pages in flight again, so that the next harvest
// has them. This needs a new token, hence --force.
std::string SealAgainCommand(const Context& context, const std::string& vm) {
  return LogCommand(context, "acquire", vm, " --force");
}

// The number of pages in flight in the log `log_id` (any log if it is "")
// besides the `own_page_count` pages that this command took and shows. Nothing
// if the number is unknown, or if the VM has another log by now.
std::optional<int64_t> CountEarlier(Client& client, const std::string& vm,
                                    const std::string& log_id,
                                    int64_t own_page_count) {
  const absl::StatusOr<v1::DirtyLog> log = GetLog(client, vm);
  if (!log.ok()) return std::nullopt;
  if (!log_id.empty() && log->log_id() != log_id) return std::nullopt;
  int64_t count = -own_page_count;
  for (const v1::SlotDirtyLog& slot : log->slots()) {
    count += slot.in_flight_page_count();
  }
  // The difference is negative if a slot was deleted or moved meanwhile.
  return std::max(count, int64_t{0});
}

Json ToJson(std::optional<int64_t> count) {
  return count ? Json(*count) : Json(nullptr);
}

// Lines about other pages that an acknowledgement would cover; "" if there are
// none.
std::string ViewEarlier(const Context& context, const std::string& vm,
                        std::optional<int64_t> count) {
  if (!count) {
    return absl::StrCat(
        "note: the number of pages in flight from before is unknown: ",
        LogCommand(context, "get", vm), "\n");
  }
  if (*count == 0) return "";
  return absl::StrCat(
      "note: ", FormatCount(*count),
      " more pages are in flight from before, which this command did not "
      "list; ",
      LogCommand(context, "ack", vm),
      " covers them too. If they were not copied, do not acknowledge; to seal "
      "all that is in flight again: ",
      SealAgainCommand(context, vm), "\n");
}

// The error of a command that took pages into flight but could not show them.
absl::Status Unseen(const Context& context, const std::string& vm,
                    const absl::Status& status) {
  return absl::Status(
      status.code(),
      absl::StrCat(status.message(),
                   "; pages are in flight that were not shown; to seal them "
                   "again: ",
                   SealAgainCommand(context, vm)));
}

absl::Status Seal(Context& context, Client& client,
                  const v1::SealDirtyLogRequest& arguments) {
  v1::SealDirtyLogRequest request = arguments;
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, request.vm());
  if (!lock.ok()) return lock.status();
  absl::StatusOr<v1::SealDirtyLogResponse> response;
  const absl::StatusOr<StoredOwner> owner = CallAsOwner(
      context, client, request, &DirtyLogClient::SealDirtyLog, &response);
  if (!owner.ok()) return owner.status();
  Table table({{"SLOT", Align::kRight},
               {"FRESH", Align::kRight},
               {"MERGED", Align::kRight}});
  for (const v1::SealedSlot& slot : response->slots()) {
    table.AddRow({absl::StrCat(slot.slot()),
                  FormatCount(slot.fresh_page_count()),
                  FormatCount(slot.merged_page_count())});
  }
  return context.Print(
      *response,
      absl::StrCat(table.ToString(), "epoch ", response->epoch(),
                   " is sealed; acknowledged ",
                   FormatCount(response->acknowledged_page_count()),
                   " pages; cost ", ViewCost(response->cost()), "\n"));
}

Json ToJson(const std::vector<GpaRange>& ranges) {
  Json json = Json::array();
  for (const GpaRange& range : ranges) {
    json.push_back(
        {{"gpa_bytes", range.gpa_bytes}, {"size_bytes", range.size_bytes}});
  }
  return json;
}

// The page count of each slot, and with `ranges` the ranges of its pages.
Json ToJson(const SlotBitmaps& slots, bool ranges) {
  Json json = Json::array();
  for (const auto& [slot, pages] : slots) {
    Json entry = {{"slot", slot},
                  {"page_count", pages.page_count()},
                  {"size_bytes", pages.size_bytes()}};
    if (ranges) entry["dirty_extents"] = ToJson(pages.Ranges());
    json.push_back(std::move(entry));
  }
  return json;
}

std::string ViewPages(const SlotBitmaps& slots, bool ranges) {
  if (!ranges) {
    Table table({{"SLOT", Align::kRight},
                 {"PAGES", Align::kRight},
                 {"SIZE", Align::kRight}});
    for (const auto& [slot, pages] : slots) {
      table.AddRow({absl::StrCat(slot), FormatCount(pages.page_count()),
                    FormatBytes(pages.size_bytes())});
    }
    return table.ToString();
  }
  Table table({{"SLOT", Align::kRight},
               {"GPA", Align::kRight},
               {"SIZE", Align::kRight},
               {"PAGES", Align::kRight}});
  for (const auto& [slot, pages] : slots) {
    for (const GpaRange& range : pages.Ranges()) {
      table.AddRow({absl::StrCat(slot), FormatGpa(range.gpa_bytes),
                    FormatBytes(range.size_bytes),
                    FormatCount(range.size_bytes / kPageBytes)});
    }
  }
  return table.ToString();
}

struct ReadArguments {
  std::string vm;
  std::vector<int32_t> slots;
  std::optional<int64_t> epoch;  // of `read`: none is the newest sealed one
  std::vector<GpaRange> range;
  bool ranges = false;
};

// Shows the pages of `request`, which says which log and epoch.
absl::Status Show(Context& context, Client& client,
                  const ReadArguments& arguments,
                  v1::ReadDirtyPagesRequest request, absl::string_view places) {
  request.set_vm(arguments.vm);
  std::vector<int32_t> slots = arguments.slots;
  std::sort(slots.begin(), slots.end());
  request.mutable_slots()->Assign(slots.begin(), slots.end());
  if (!arguments.range.empty()) {
    if (slots.size() != 1) return UsageError("--range needs one SLOT");
    *request.mutable_range() = ToExtent(arguments.range.front());
  }
  SlotBitmaps pages;
  DirtyLogStream stream(&pages);
  absl::Status status = client.dirty_log().ReadDirtyPagesOnce(
      request, [&stream](const v1::ReadDirtyPagesResponse& message) {
        return stream.OnMessage(message);
      });
  if (status.ok()) status = stream.OnEnd();
  if (!status.ok()) return status;
  int64_t count = 0;
  for (const auto& [slot, bitmap] : pages) count += bitmap.page_count();
  const absl::StatusOr<Json> cost = MessageToJson(stream.trailer()->cost());
  if (!cost.ok()) return cost.status();
  return context.Print(
      Json{{"log_id", stream.header()->log_id()},
           {"epoch", stream.header()->epoch()},
           {"page_count", count},
           {"size_bytes", count * kPageBytes},
           {"slots", ToJson(pages, arguments.ranges)},
           {"cost", *cost}},
      absl::StrCat(ViewPages(pages, arguments.ranges), FormatCount(count),
                   " pages, ", FormatBytes(count * kPageBytes), ", ", places,
                   "; cost ", ViewCost(stream.trailer()->cost()), "\n"));
}

absl::Status Peek(Context& context, Client& client,
                  const ReadArguments& arguments) {
  return Show(context, client, arguments, {}, "are open, sealed or in flight");
}

absl::Status Read(Context& context, Client& client,
                  const ReadArguments& arguments) {
  // For the daemon, epoch 0 means a peek at all dirty pages; the command for
  // that is `peek`.
  if (arguments.epoch == 0) {
    return UsageError(
        absl::StrCat("--epoch is 0; it must be the number of the newest sealed "
                     "epoch; to see the dirty pages: ",
                     LogCommand(context, "peek", arguments.vm)));
  }
  const absl::StatusOr<v1::DirtyLog> log = GetLog(client, arguments.vm);
  if (!log.ok()) return log.status();
  v1::ReadDirtyPagesRequest request;
  request.set_log_id(log->log_id());
  request.set_epoch(arguments.epoch.value_or(log->sealed_epoch()));
  if (request.epoch() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no epoch of the dirty log of ", arguments.vm,
        " is sealed yet; to seal one: ",
        LogCommand(context, "seal", arguments.vm), "; to see the dirty pages: ",
        LogCommand(context, "peek", arguments.vm)));
  }
  const std::string places =
      absl::StrCat("are sealed in epoch ", request.epoch());
  return Show(context, client, arguments, std::move(request), places);
}

// Names all pages of `part` of a slot, or only `pages` of it.
v1::SlotPages NamePages(int32_t slot, const GpaRange& part,
                        const std::vector<GpaRange>& pages) {
  v1::SlotPages named;
  named.set_slot(slot);
  named.set_start_gpa_bytes(part.gpa_bytes);
  named.set_size_bytes(part.size_bytes);
  for (const GpaRange& range :
       pages.empty() ? std::vector<GpaRange>{part} : pages) {
    *named.mutable_extents()->add_extents() = ToExtent(range);
  }
  return named;
}

struct ClearArguments {
  v1::ClearDirtyLogRequest request;
  int32_t slot = 0;
  int64_t epoch = 0;
  std::vector<GpaRange> range;
  std::vector<GpaRange> pages;
};

absl::Status Clear(Context& context, Client& client,
                   const ClearArguments& arguments) {
  v1::ClearDirtyLogRequest request = arguments.request;
  request.set_epoch(arguments.epoch);
  *request.mutable_pages() =
      NamePages(arguments.slot, arguments.range.front(), arguments.pages);
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, request.vm());
  if (!lock.ok()) return lock.status();
  absl::StatusOr<v1::ClearDirtyLogResponse> response;
  const absl::StatusOr<StoredOwner> owner = CallAsOwner(
      context, client, request, &DirtyLogClient::ClearDirtyLog, &response);
  if (!owner.ok()) return owner.status();
  const std::optional<int64_t> earlier = CountEarlier(
      client, request.vm(), owner->log_id, response->cleared_page_count());
  absl::StatusOr<Json> json = MessageToJson(*response);
  if (!json.ok()) return json.status();
  (*json)["earlier_in_flight_page_count"] = ToJson(earlier);
  const absl::Status printed = context.Print(
      *json,
      absl::StrCat(
          "cleared ", FormatCount(response->cleared_page_count()),
          " pages, which are in flight now: ",
          AckHint(context, request.vm(), request.epoch()), " (",
          FormatCount(response->already_in_flight_page_count()),
          " were in flight already, ",
          FormatCount(response->already_clean_page_count()), " not sealed",
          response->also_protected_page_count() == 0
              ? ""
              : absl::StrCat(", ",
                             FormatCount(response->also_protected_page_count()),
                             " others were protected with them"),
          "); ", FormatCount(response->still_sealed_page_count()),
          " still sealed; split ", ViewSplits(response->splits()), "; cost ",
          ViewCost(response->cost()), "\n",
          ViewEarlier(context, request.vm(), earlier)));
  if (printed.ok() || response->cleared_page_count() == 0) return printed;
  return Unseen(context, request.vm(), printed);
}

absl::Status NothingSealed(const Context& context, const std::string& vm) {
  return absl::FailedPreconditionError(absl::StrCat(
      "no epoch of the dirty log of ", vm,
      " is sealed yet, so nothing is in flight that could be acknowledged; "
      "seal, clear and copy first: ",
      LogCommand(context, "harvest", vm)));
}

struct AckArguments {
  std::string vm;
  std::vector<int32_t> slot;     // none or one
  std::optional<int64_t> epoch;  // none: the newest sealed one
  std::vector<GpaRange> range;
  std::vector<GpaRange> pages;
};

absl::Status Ack(Context& context, Client& client,
                 const AckArguments& arguments) {
  if (arguments.slot.size() != arguments.range.size()) {
    return UsageError("a SLOT needs --range, and --range needs a SLOT");
  }
  v1::AcknowledgePagesRequest request;
  request.set_vm(arguments.vm);
  request.set_epoch(arguments.epoch.value_or(0));
  if (!arguments.slot.empty()) {
    *request.mutable_pages() = NamePages(
        arguments.slot.front(), arguments.range.front(), arguments.pages);
  }
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, arguments.vm);
  if (!lock.ok()) return lock.status();
  absl::StatusOr<v1::AcknowledgePagesResponse> response;
  const absl::StatusOr<StoredOwner> owner = AsOwner(
      context, client, arguments.vm,
      [&](const StoredOwner& stored) -> absl::Status {
        if (!arguments.epoch) {
          const absl::StatusOr<v1::DirtyLog> log = GetLog(client, arguments.vm);
          if (!log.ok()) return log.status();
          if (log->sealed_epoch() == 0) {
            return NothingSealed(context, arguments.vm);
          }
          request.set_epoch(log->sealed_epoch());
        }
        request.set_owner_token(stored.token);
        request.set_log_id(stored.log_id);
        response = client.dirty_log().AcknowledgePages(request);
        return response.status();
      });
  if (!owner.ok()) return owner.status();
  return context.Print(
      *response,
      absl::StrCat("acknowledged ",
                   FormatCount(response->acknowledged_page_count()), " pages; ",
                   FormatCount(response->still_in_flight_page_count()),
                   " are still in flight\n"));
}

struct HarvestArguments {
  std::string vm;
  std::vector<int32_t> slots;
  int64_t clear_range_bytes = HarvesterOptions().clear_range_bytes;
  bool ranges = false;
  bool ack = false;
};

absl::StatusOr<Json> HarvestJson(const Harvest& harvest, bool ranges) {
  const absl::StatusOr<Json> cost = MessageToJson(harvest.cost);
  if (!cost.ok()) return cost.status();
  return Json{{"log_id", harvest.log_id},
              {"epoch", harvest.epoch},
              {"page_count", harvest.page_count()},
              {"size_bytes", harvest.page_count() * kPageBytes},
              {"fresh_page_count", harvest.fresh_page_count},
              {"merged_page_count", harvest.merged_page_count},
              {"cleared_page_count", harvest.cleared_page_count},
              {"splits",
               {{"split_2m_count", harvest.split_2m_count},
                {"split_1g_count", harvest.split_1g_count}}},
              {"chunk_count", harvest.chunk_count},
              {"clear_call_count", harvest.clear_call_count},
              {"resume_count", harvest.resume_count},
              {"restart_count", harvest.restart_count},
              {"seal_time", DurationToJson(harvest.seal_time)},
              {"clear_time", DurationToJson(harvest.clear_time)},
              {"slots", ToJson(harvest.pages, ranges)},
              {"cost", *cost},
              {"acknowledged", false},
              {"acknowledged_page_count", 0}};
}

// Whether `log` has pages in flight that were cleared after `before`, by a
// harvest that failed with `status`. False if another owner has the log by now:
// the user should not take it away from that owner.
bool HasTakenPages(const v1::DirtyLog& before, const v1::DirtyLog& log,
                   const absl::Status& status) {
  const v1::ErrorReason reason = ReasonOf(status);
  return reason != v1::LOG_OWNED && reason != v1::LOG_FENCED &&
         reason != v1::LOG_CHANGED && reason != v1::DIRTY_LOG_OFF &&
         log.log_id() == before.log_id() && !log.epochs_in_flight().empty() &&
         *log.epochs_in_flight().rbegin() > before.sealed_epoch();
}

// After a failed harvest: shows which slots have pages in flight, if the
// harvest took some. No later harvest of this owner returns these pages, and an
// acknowledgement would lose them.
absl::Status PrintUnfinished(Context& context, Client& client,
                             const v1::DirtyLog& before,
                             const absl::Status& status) {
  const std::string& vm = before.vm();
  const absl::StatusOr<v1::DirtyLog> log = GetLog(client, vm);
  if (!log.ok() || !HasTakenPages(before, *log, status)) return status;
  Json slots = Json::array();
  Table table({{"SLOT", Align::kRight},
               {"IN FLIGHT", Align::kRight},
               {"SIZE", Align::kRight}});
  for (const v1::SlotDirtyLog& slot : log->slots()) {
    const int64_t pages = slot.in_flight_page_count();
    if (pages == 0) continue;
    slots.push_back({{"slot", slot.slot()},
                     {"page_count", pages},
                     {"size_bytes", pages * kPageBytes}});
    table.AddRow({absl::StrCat(slot.slot()), FormatCount(pages),
                  FormatBytes(pages * kPageBytes)});
  }
  absl::Status all = status;
  all.Update(context.Print(Json{{"log_id", log->log_id()},
                                {"epoch", log->sealed_epoch()},
                                {"unfinished", std::move(slots)}},
                           table.ToString()));
  // With --json standard error has only one object, that of the error.
  if (!context.json) {
    context.err() << "note: pages are in flight that this command did not "
                     "show; to seal them again: "
                  << SealAgainCommand(context, vm) << "\n";
  }
  return all;
}

// OK while the command may continue. After a signal, an error that ends the
// command.
absl::Status MayGoOn(Context& context, const InterruptNote& note) {
  const int number = note.arrived();
  if (number == 0) return absl::OkStatus();
  context.signal = number;
  return absl::CancelledError(
      absl::StrCat("interrupted by ", number == SIGINT ? "SIGINT" : "SIGTERM",
                   " before it was done"));
}

// Acknowledges only the pages of `harvest`, and no other pages in flight of its
// epoch or of earlier ones. Adds the daemon's count to `*page_count`.
absl::Status AcknowledgeHarvest(Context& context, Client& client,
                                const HarvestArguments& arguments,
                                const InterruptNote& note,
                                const StoredOwner& owner,
                                const Harvest& harvest, int64_t* page_count) {
  for (const auto& [slot, pages] : harvest.pages) {
    const GpaRange& whole = pages.range();
    for (int64_t offset = 0; offset < whole.size_bytes;
         offset += arguments.clear_range_bytes) {
      const GpaRange range = {
          whole.gpa_bytes + offset,
          std::min(arguments.clear_range_bytes, whole.size_bytes - offset)};
      if (pages.CountIn(range) == 0) continue;
      if (absl::Status status = MayGoOn(context, note); !status.ok()) {
        return status;
      }
      v1::AcknowledgePagesRequest request;
      request.set_vm(arguments.vm);
      request.set_owner_token(owner.token);
      request.set_log_id(harvest.log_id);
      request.set_epoch(harvest.epoch);
      request.mutable_pages()->set_slot(slot);
      request.mutable_pages()->set_start_gpa_bytes(range.gpa_bytes);
      request.mutable_pages()->set_size_bytes(range.size_bytes);
      request.mutable_pages()->set_bitmap(pages.Bitmap(range));
      const auto response = client.dirty_log().AcknowledgePages(request);
      if (!response.ok()) return response.status();
      *page_count += response->acknowledged_page_count();
    }
  }
  return absl::OkStatus();
}

// The text for the first Ctrl-C. Empty with --json or --quiet, where standard
// error has only an error or nothing.
std::string HarvestNote(const Context& context, const std::string& vm) {
  if (context.json || context.quiet) return "";
  return absl::StrCat(
      "\n"
      "ends after the present call; Ctrl-C again ends it at once, and then "
      "pages may be in flight that were not shown; to seal them again: ",
      SealAgainCommand(context, vm), "\n");
}

absl::Status RunHarvest(Context& context, Client& client,
                        const HarvestArguments& arguments) {
  const absl::StatusOr<OwnerLock> lock = LockOwner(context, arguments.vm);
  if (!lock.ok()) return lock.status();
  const absl::StatusOr<v1::DirtyLog> before = GetLog(client, arguments.vm);
  if (!before.ok()) {
    return ForgetIfGone(context, client, arguments.vm, before.status());
  }
  const InterruptNote note(HarvestNote(context, arguments.vm),
                           {SIGINT, SIGTERM});
  HarvesterOptions options;
  options.slots = arguments.slots;
  std::sort(options.slots.begin(), options.slots.end());
  options.clear_range_bytes = arguments.clear_range_bytes;
  options.may_go_on = [&] { return MayGoOn(context, note); };
  absl::StatusOr<Harvest> harvest;
  const absl::StatusOr<StoredOwner> owner =
      AsOwner(context, client, arguments.vm, [&](const StoredOwner& stored) {
        options.log_id = stored.log_id;
        harvest =
            Harvester(&client.dirty_log(), arguments.vm, stored.token, options)
                .Run();
        return harvest.status();
      });
  if (!owner.ok()) {
    return PrintUnfinished(context, client, *before, owner.status());
  }
  absl::StatusOr<Json> json = HarvestJson(*harvest, arguments.ranges);
  if (!json.ok()) return json.status();
  absl::Status status;
  int64_t acknowledged = 0;
  if (arguments.ack) {
    status = AcknowledgeHarvest(context, client, arguments, note, *owner,
                                *harvest, &acknowledged);
  }
  const bool all_acknowledged = arguments.ack && status.ok();
  const int64_t in_flight =
      all_acknowledged ? 0 : harvest->page_count() - acknowledged;
  const std::optional<int64_t> earlier =
      CountEarlier(client, arguments.vm, harvest->log_id, in_flight);
  (*json)["acknowledged"] = all_acknowledged;
  (*json)["acknowledged_page_count"] = acknowledged;
  (*json)["earlier_in_flight_page_count"] = ToJson(earlier);
  const std::string pages = absl::StrCat(
      "epoch ", harvest->epoch, ": ", FormatCount(harvest->page_count()),
      " pages, ", FormatBytes(harvest->page_count() * kPageBytes));
  std::string end;
  if (!arguments.ack) {
    end = absl::StrCat(pages, ", are in flight: ",
                       AckHint(context, arguments.vm, harvest->epoch));
  } else if (status.ok()) {
    end = absl::StrCat(pages, "; acknowledged ", FormatCount(acknowledged),
                       " pages: no log has them any more");
  } else {
    end = absl::StrCat(pages, "; acknowledged ", FormatCount(acknowledged),
                       " pages, and the others are in flight");
  }
  // The harvested pages are shown even if their acknowledgement fails, since no
  // later harvest returns them.
  const absl::Status printed = context.Print(
      *json, absl::StrCat(ViewPages(harvest->pages, arguments.ranges), "seal ",
                          FormatTime(harvest->seal_time), ", clear ",
                          FormatTime(harvest->clear_time), "; cost ",
                          ViewCost(harvest->cost), "\n", end, "\n",
                          ViewEarlier(context, arguments.vm, earlier)));
  status.Update(printed.ok() || in_flight == 0
                    ? printed
                    : Unseen(context, arguments.vm, printed));
  return status;
}

void AddReading(CLI::App* command, ReadArguments* arguments) {
  AddVm(command, &arguments->vm);
  AddSlots(command, &arguments->slots);
  AddRanges(command, "--range", &arguments->range,
            "only this part of the slot; ends on multiples of 64 pages")
      ->expected(1);
  command->add_flag("--ranges", arguments->ranges, "list the pages");
}

}  // namespace

void AddDirtyPageCommands(CLI::App& group, Context& context) {
  auto seal = std::make_shared<v1::SealDirtyLogRequest>();
  CLI::App* command = AddCommand(
      group, "seal", "Closes the open epoch of all slots and opens the next.",
      "mmuctl dirty-log seal alpha\n"
      "mmuctl dirty-log seal alpha --ack 3");
  AddVm(command, seal->mutable_vm());
  command->add_option_function<int64_t>(
      "--ack", [seal](int64_t epoch) { seal->set_acknowledged_epoch(epoch); },
      "before the seal, acknowledge the pages in flight of all epochs up to "
      "this one");
  Run(command, context, seal, Seal);

  auto read = std::make_shared<ReadArguments>();
  command = AddCommand(
      group, "read",
      "Shows the pages of the newest sealed epoch that are not cleared. "
      "Changes nothing.",
      "mmuctl dirty-log read alpha\n"
      "mmuctl --json dirty-log read alpha 0 --epoch 3 --ranges");
  AddReading(command, read.get());
  command->add_option("--epoch", read->epoch,
                      "fail unless this is the newest sealed epoch");
  Run(command, context, read, Read);

  auto peek = std::make_shared<ReadArguments>();
  command =
      AddCommand(group, "peek",
                 "Shows all pages that are not acknowledged: open, sealed and "
                 "in flight. Changes nothing and needs no token.",
                 "mmuctl dirty-log peek alpha\n"
                 "mmuctl dirty-log peek alpha 0 --range 0+1MiB --ranges");
  AddReading(command, peek.get());
  Run(command, context, peek, Peek);

  auto clear = std::make_shared<ClearArguments>();
  command = AddCommand(
      group, "clear",
      "Takes sealed pages into flight: their next write is logged, and they "
      "must be copied now.",
      "mmuctl dirty-log clear alpha 0 --epoch 3 --range 0+1MiB\n"
      "mmuctl dirty-log clear alpha 0 --epoch 3 --range 0+1MiB --pages 8K+4K");
  AddVm(command, clear->request.mutable_vm());
  AddSlot(command, &clear->slot);
  command->add_option("--epoch", clear->epoch, "the newest sealed epoch")
      ->required();
  AddRanges(command, "--range", &clear->range,
            "range to clear; ends on multiples of 64 pages")
      ->required()
      ->expected(1);
  AddRanges(command, "--pages", &clear->pages,
            "only these pages of the slot (default: all)");
  Run(command, context, clear, Clear);

  auto ack = std::make_shared<AckArguments>();
  command = AddCommand(
      group, "ack",
      "Acknowledges pages in flight: their copies have arrived, and the pages "
      "leave the log.",
      "mmuctl dirty-log ack alpha --epoch 3\n"
      "mmuctl dirty-log ack alpha 0 --epoch 3 --range 0+1MiB --pages 8K+4K");
  AddVm(command, &ack->vm);
  AddSlots(command, &ack->slot)
      ->expected(0, 1)
      ->description("one memslot, by its id (default: all)");
  command->add_option(
      "--epoch", ack->epoch,
      "acknowledge pages of this epoch and earlier ones (default: the newest "
      "sealed epoch, so all pages in flight)");
  AddRanges(command, "--range", &ack->range,
            "only this part of the slot; ends on multiples of 64 pages")
      ->expected(1);
  AddRanges(command, "--pages", &ack->pages,
            "only these pages of the slot (default: all)");
  Run(command, context, ack, Ack);

  auto harvest = std::make_shared<HarvestArguments>();
  command = AddCommand(group, "harvest",
                       "Seals, reads and clears. The pages shown are in "
                       "flight: copy them now, then acknowledge them.",
                       "mmuctl dirty-log harvest alpha\n"
                       "mmuctl dirty-log harvest alpha --ack\n"
                       "mmuctl --json dirty-log harvest alpha 0 --ranges");
  AddVm(command, &harvest->vm);
  AddSlots(command, &harvest->slots);
  AddBytes(command, "--clear-range", &harvest->clear_range_bytes,
           "memory that one clear covers (default: 256MiB)")
      ->check([](const std::string& text) -> std::string {
        const absl::StatusOr<int64_t> bytes = ParseBytes(text);
        return bytes.ok() && *bytes > 0 &&
                       *bytes % (kPagesPerWord * kPageBytes) == 0
                   ? ""
                   : "must be a multiple of 64 pages (256KiB)";
      });
  command->add_flag("--ranges", harvest->ranges, "list the pages");
  command->add_flag("--ack", harvest->ack,
                    "acknowledge the pages at once, without a copy");
  Run(command, context, harvest, RunHarvest);
}

}  // namespace mmud::client
