// mmuctl dirty-log start, stop, get, clear, rate, harvest.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "mmud/v1/dirty_log_service.pb.h"

namespace mmud::client {
namespace {

struct StartArguments {
  v1::StartDirtyLogRequest request;
  std::vector<int32_t> slots;
  bool initially_set = false;
  v1::DirtyLogMode mode = v1::DIRTY_LOG_MODE_UNSPECIFIED;
  v1::DirtyLogSplit split = v1::DIRTY_LOG_SPLIT_UNSPECIFIED;
  absl::Duration ttl = absl::ZeroDuration();
  ThrottleArguments throttle;
};

std::string ViewSlots(const v1::DirtyLog& log) {
  Table table({{"SLOT", Align::kRight},
               {"STATE"},
               {"EPOCH", Align::kRight},
               {"SEALED", Align::kRight},
               {"UNACKED PAGES", Align::kRight}});
  for (const v1::SlotDirtyLog& slot : log.slots()) {
    table.AddRow(
        {absl::StrCat(slot.slot()),
         ShortName(v1::DirtyLogState_Name(slot.state()), "DIRTY_LOG_STATE_"),
         absl::StrCat(slot.open_epoch()), absl::StrCat(slot.sealed_epoch()),
         FormatCount(slot.unacked_page_count())});
  }
  return table.ToString();
}

absl::Status Start(Context& context, Client& client,
                   const StartArguments& arguments) {
  v1::StartDirtyLogRequest request = arguments.request;
  for (const int32_t slot : arguments.slots) request.add_slots(slot);
  request.set_initially_set(arguments.initially_set);
  request.set_mode(arguments.mode);
  request.set_split(arguments.split);
  if (arguments.ttl > absl::ZeroDuration()) {
    *request.mutable_ttl() = ToProto(arguments.ttl);
  }
  if (!arguments.throttle.empty()) {
    arguments.throttle.ApplyTo(request.mutable_throttle());
  }
  const auto response = client.dirty_log().StartDirtyLog(request);
  if (!response.ok()) return response.status();
  return context.Print(*response,
                       absl::StrCat(ViewSlots(response->dirty_log()), "split ",
                                    ViewSplits(response->splits()), "; cost ",
                                    ViewCost(response->cost()), "\n"));
}

struct StopArguments {
  v1::StopDirtyLogRequest request;
  std::vector<int32_t> slots;
  bool recover = false;
  bool discard = false;
};

absl::Status Stop(Context& context, Client& client,
                  const StopArguments& arguments) {
  v1::StopDirtyLogRequest request = arguments.request;
  for (const int32_t slot : arguments.slots) request.add_slots(slot);
  request.set_recover_huge_pages(arguments.recover);
  request.set_discard_unacked(arguments.discard);
  const auto response = client.dirty_log().StopDirtyLog(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response,
      absl::StrCat("discarded ", FormatCount(response->discarded_page_count()),
                   " dirty pages; made ",
                   FormatCount(response->recovered_2m_count()), " of 2M, ",
                   FormatCount(response->recovered_1g_count()), " of 1G; cost ",
                   ViewCost(response->cost()), "\n"));
}

Json ToJson(const std::vector<GpaRange>& ranges) {
  Json json = Json::array();
  for (const GpaRange& range : ranges) {
    json.push_back(
        {{"gpa_bytes", range.gpa_bytes}, {"size_bytes", range.size_bytes}});
  }
  return json;
}

std::string ViewRanges(const std::vector<GpaRange>& ranges) {
  Table table({{"GPA", Align::kRight},
               {"SIZE", Align::kRight},
               {"PAGES", Align::kRight}});
  for (const GpaRange& range : ranges) {
    table.AddRow({FormatGpa(range.gpa_bytes), FormatBytes(range.size_bytes),
                  FormatCount(range.size_bytes / kPageBytes)});
  }
  return table.ToString();
}

struct GetArguments {
  v1::GetDirtyLogRequest request;
  int32_t slot = 0;
  bool seal = false;
  int64_t epoch = 0;
  std::vector<GpaRange> ranges;
};

absl::Status Get(Context& context, Client& client,
                 const GetArguments& arguments) {
  v1::GetDirtyLogRequest request = arguments.request;
  request.set_slot(arguments.slot);
  request.set_epoch(arguments.epoch);
  request.set_mode(arguments.seal || arguments.epoch > 0
                       ? v1::GET_DIRTY_LOG_MODE_SEAL
                       : v1::GET_DIRTY_LOG_MODE_PEEK);
  if (!arguments.ranges.empty()) {
    *request.mutable_range() = ToExtent(arguments.ranges.front());
  }
  std::optional<PageBitmap> pages;
  DirtyLogStream stream(&pages);
  absl::Status status = client.dirty_log().GetDirtyLogOnce(
      request, [&stream](const v1::GetDirtyLogResponse& message) {
        return stream.OnMessage(message);
      });
  if (status.ok()) status = stream.OnEnd();
  if (!status.ok()) return status;
  const std::vector<GpaRange> ranges = pages->Ranges();
  const absl::StatusOr<Json> cost = MessageToJson(stream.trailer()->cost());
  if (!cost.ok()) return cost.status();
  return context.Print(
      Json{{"slot", arguments.slot},
           {"epoch", stream.header()->epoch()},
           {"page_count", pages->page_count()},
           {"size_bytes", pages->size_bytes()},
           {"dirty_extents", ToJson(ranges)},
           {"cost", *cost}},
      absl::StrCat(ViewRanges(ranges), "epoch ", stream.header()->epoch(), ": ",
                   FormatCount(pages->page_count()), " dirty pages, ",
                   FormatBytes(pages->size_bytes()), "; cost ",
                   ViewCost(stream.trailer()->cost()), "\n"));
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
  const GpaRange range = arguments.range.front();
  request.set_slot(arguments.slot);
  request.set_epoch(arguments.epoch);
  request.set_start_gpa_bytes(range.gpa_bytes);
  request.set_size_bytes(range.size_bytes);
  v1::ExtentList& pages = *request.mutable_extents();
  for (const GpaRange& part :
       arguments.pages.empty() ? arguments.range : arguments.pages) {
    *pages.add_extents() = ToExtent(part);
  }
  const auto response = client.dirty_log().ClearDirtyLog(request);
  if (!response.ok()) return response.status();
  return context.Print(
      *response,
      absl::StrCat(
          "cleared ", FormatCount(response->cleared_page_count()), " pages (",
          FormatCount(response->already_clean_page_count()),
          " were clean already); ", FormatCount(response->unacked_page_count()),
          " still to clear; split ", ViewSplits(response->splits()), "; cost ",
          ViewCost(response->cost()), "\n"));
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

struct HarvestArguments {
  std::string vm;
  std::vector<int32_t> slots;
  int64_t clear_range_bytes = HarvesterOptions().clear_range_bytes;
  bool ranges = false;
};

// Everything that is known of a harvest but its pages.
absl::StatusOr<Json> HarvestJson(int32_t slot, const Harvest& harvest) {
  const absl::StatusOr<Json> cost = MessageToJson(harvest.cost);
  if (!cost.ok()) return cost.status();
  return Json{{"slot", slot},
              {"epoch", harvest.epoch},
              {"page_count", harvest.pages.page_count()},
              {"size_bytes", harvest.pages.size_bytes()},
              {"sealed_page_count", harvest.sealed_page_count},
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
              {"cost", *cost}};
}

// The slots to harvest, those that were named or all that log. All of them log:
// a slot that does not is found before anything leaves the log of another.
absl::StatusOr<std::vector<int32_t>> SlotsToHarvest(
    Client& client, const HarvestArguments& arguments) {
  v1::GetVmRequest request;
  request.set_name(arguments.vm);
  const auto vm = client.vms().GetVm(request);
  if (!vm.ok()) return vm.status();
  std::vector<int32_t> logging;
  for (const v1::Memslot& slot : vm->vm().memslots()) {
    if (slot.dirty_log().state() == v1::DIRTY_LOG_STATE_ACTIVE) {
      logging.push_back(slot.slot());
    }
  }
  for (const int32_t slot : arguments.slots) {
    if (absl::c_linear_search(logging, slot)) continue;
    return absl::FailedPreconditionError(absl::StrCat(
        "memslot ", slot, " of ", arguments.vm,
        " does not log dirty pages; no slot was harvested; see mmuctl vm get ",
        absl::StripPrefix(arguments.vm, "vms/")));
  }
  if (!arguments.slots.empty()) return arguments.slots;
  if (logging.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no memslot of ", arguments.vm,
        " logs dirty pages; switch it on with mmuctl dirty-log start"));
  }
  return logging;
}

// What a harvest came to, as far as it came.
class HarvestReport {
 public:
  explicit HarvestReport(bool ranges)
      : table_({{"SLOT", Align::kRight},
                {"EPOCH", Align::kRight},
                {"PAGES", Align::kRight},
                {"SIZE", Align::kRight},
                {"SEAL", Align::kRight},
                {"CLEAR", Align::kRight},
                {"LOCK WAIT", Align::kRight},
                {"MAX HOLD", Align::kRight},
                {"FLUSHES", Align::kRight},
                {"KICKS", Align::kRight}}),
        with_ranges_(ranges) {}

  absl::Status Add(int32_t slot, const Harvest& harvest) {
    table_.AddRow({absl::StrCat(slot), absl::StrCat(harvest.epoch),
                   FormatCount(harvest.pages.page_count()),
                   FormatBytes(harvest.pages.size_bytes()),
                   FormatTime(harvest.seal_time),
                   FormatTime(harvest.clear_time),
                   FormatTime(FromProto(harvest.cost.lock_wait())),
                   FormatTime(FromProto(harvest.cost.max_lock_hold())),
                   FormatCount(harvest.cost.tlb_flush_count()),
                   FormatCount(harvest.cost.vcpus_kicked_count())});
    absl::StatusOr<Json> entry = HarvestJson(slot, harvest);
    if (!entry.ok()) return entry.status();
    AddRanges(slot, harvest.pages, &*entry);
    slots_.push_back(*std::move(entry));
    return absl::OkStatus();
  }

  // Pages that an unfinished harvest of the slot may have taken out of the log.
  void AddUnfinished(int32_t slot, const PageBitmap& pages) {
    table_.AddRow({absl::StrCat(slot), "unfinished",
                   FormatCount(pages.page_count()),
                   FormatBytes(pages.size_bytes())});
    Json entry = {{"slot", slot},
                  {"page_count", pages.page_count()},
                  {"size_bytes", pages.size_bytes()}};
    AddRanges(slot, pages, &entry);
    unfinished_.push_back(std::move(entry));
  }

  bool empty() const { return slots_.empty() && unfinished_.empty(); }

  absl::Status Print(Context& context) {
    Json json = {{"slots", std::move(slots_)}};
    if (!unfinished_.empty()) json["unfinished"] = std::move(unfinished_);
    return context.Print(json, absl::StrCat(table_.ToString(), ranges_));
  }

 private:
  void AddRanges(int32_t slot, const PageBitmap& pages, Json* entry) {
    if (!with_ranges_) return;
    (*entry)["dirty_extents"] = ToJson(pages.Ranges());
    absl::StrAppend(&ranges_, "\nslot ", slot, ":\n",
                    ViewRanges(pages.Ranges()));
  }

  Table table_;
  const bool with_ranges_;
  std::string ranges_;
  Json slots_ = Json::array();
  Json unfinished_ = Json::array();
};

// What has left the log is shown, also if the harvest does not come to its end:
// nobody else will ever hear of these pages.
absl::Status RunHarvest(Context& context, Client& client,
                        const HarvestArguments& arguments) {
  const absl::StatusOr<std::vector<int32_t>> slots =
      SlotsToHarvest(client, arguments);
  if (!slots.ok()) return slots.status();
  HarvesterOptions options;
  options.clear_range_bytes = arguments.clear_range_bytes;
  Harvester harvester(&client.dirty_log(), arguments.vm, options);
  HarvestReport report(arguments.ranges);
  absl::Status status;
  for (const int32_t slot : *slots) {
    const absl::StatusOr<Harvest> harvest = harvester.Run(slot);
    status = harvest.ok() ? report.Add(slot, *harvest) : harvest.status();
    if (!status.ok()) break;
  }
  for (const auto& [slot, pages] : harvester.owed()) {
    report.AddUnfinished(slot, pages);
  }
  if (!report.empty()) status.Update(report.Print(context));
  return status;
}

void AddStart(CLI::App& group, Context& context) {
  auto start = std::make_shared<StartArguments>();
  CLI::App* command =
      AddCommand(group, "start", "Switches dirty logging on.",
                 "mmuctl dirty-log start alpha\n"
                 "mmuctl dirty-log start alpha --initially-set --ttl 10m\n"
                 "mmuctl dirty-log start alpha 0 1 --split none");
  AddVm(command, start->request.mutable_vm());
  AddSlots(command, &start->slots);
  command->add_flag("--initially-set", start->initially_set,
                    "every page starts as dirty; the first clear does the "
                    "work");
  AddChoice(command, "--mode", &start->mode,
            {{"bitmap", v1::DIRTY_LOG_MODE_BITMAP},
             {"ring", v1::DIRTY_LOG_MODE_RING}},
            "fail unless the VM logs like this (default: as it was made, see "
            "vm create --dirty-ring-entries)");
  AddChoice(command, "--split", &start->split,
            {{"none", v1::DIRTY_LOG_SPLIT_NONE},
             {"eager", v1::DIRTY_LOG_SPLIT_EAGER},
             {"on-clear", v1::DIRTY_LOG_SPLIT_ON_CLEAR}},
            "when huge mappings are split (default: eager, or on-clear with "
            "--initially-set)");
  AddTime(command, "--ttl", &start->ttl,
          "stop the log when nobody harvests for so long");
  AddThrottle(command, &start->throttle);
  Run(command, context, start, Start);
}

}  // namespace

void AddDirtyLogCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "dirty-log", "Logs which pages the guest writes.",
               "mmuctl dirty-log start alpha\n"
               "mmuctl dirty-log get alpha 0\n"
               "mmuctl dirty-log harvest alpha\n"
               "mmuctl dirty-log rate alpha\n"
               "mmuctl dirty-log stop alpha --discard-unacked");
  AddStart(*group, context);

  auto stop = std::make_shared<StopArguments>();
  CLI::App* command = AddCommand(
      *group, "stop", "Switches dirty logging off and forgets what it logged.",
      "mmuctl dirty-log stop alpha --recover-huge-pages\n"
      "mmuctl dirty-log stop alpha --discard-unacked");
  AddVm(command, stop->request.mutable_vm());
  AddSlots(command, &stop->slots);
  command->add_flag("--recover-huge-pages", stop->recover,
                    "put small mappings together again");
  command->add_flag("--discard-unacked", stop->discard,
                    "stop although dirty pages, open or sealed, were not "
                    "cleared");
  Run(command, context, stop, Stop);

  auto get = std::make_shared<GetArguments>();
  command = AddCommand(
      *group, "get",
      "Shows the dirty pages of a memslot. Changes nothing unless --seal.",
      "mmuctl dirty-log get alpha 0\n"
      "mmuctl dirty-log get alpha 0 --seal\n"
      "mmuctl --json dirty-log get alpha 0 --epoch 3");
  AddVm(command, get->request.mutable_vm());
  AddSlot(command, &get->slot);
  CLI::Option* seal = command->add_flag(
      "--seal", get->seal, "close the open epoch and show that one");
  command->add_option("--epoch", get->epoch, "show this sealed epoch again")
      ->excludes(seal);
  AddRanges(command, "--range", &get->ranges,
            "only this part; ends on multiples of 64 pages")
      ->expected(1);
  Run(command, context, get, Get);

  auto clear = std::make_shared<ClearArguments>();
  command = AddCommand(
      *group, "clear",
      "Acknowledges pages of a sealed epoch: they leave the log.",
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
            "only these pages of it (default: all of it)");
  Run(command, context, clear, Clear);

  auto rate = std::make_shared<RateArguments>();
  command =
      AddCommand(*group, "rate", "Tells how quickly the guest dirties pages.",
                 "mmuctl dirty-log rate alpha\n"
                 "mmuctl dirty-log rate alpha --window 500ms 5s --per-vcpu");
  AddVm(command, rate->request.mutable_vm());
  command
      ->add_option("--window", rate->windows,
                   "times to look back (default: 1s, 10s, 60s)")
      ->type_name("TIME")
      ->expected(1, 16);
  command->add_flag_function(
      "--per-vcpu", [rate](int64_t) { rate->request.set_per_vcpu(true); },
      "tell each vCPU's share too");
  Run(command, context, rate, Rate);

  auto harvest = std::make_shared<HarvestArguments>();
  command = AddCommand(
      *group, "harvest",
      "Seals, receives and clears. The pages shown are to be copied now: they "
      "have left the log.",
      "mmuctl dirty-log harvest alpha\n"
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
  Run(command, context, harvest, RunHarvest);
}

}  // namespace mmud::client
