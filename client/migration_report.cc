#include "client/migration_report.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

using Json = nlohmann::ordered_json;

std::string ViewTime(const google::protobuf::Duration& duration) {
  return FormatTime(FromProto(duration));
}

std::string RoundTable(const MigrationReport& report) {
  Table table({{"ROUND"},
               {"EPOCH", Align::kRight},
               {"DIRTY PAGES", Align::kRight},
               {"SENT", Align::kRight},
               {"TIME", Align::kRight},
               {"HARVEST", Align::kRight},
               {"ON THE LINK", Align::kRight},
               {"LEFT", Align::kRight},
               {"IN FLIGHT", Align::kRight}});
  for (const MigrationRound& round : report.rounds) {
    table.AddRow({round.name, absl::StrCat(round.epoch),
                  FormatCount(round.page_count), FormatBytes(round.sent_bytes),
                  FormatTime(round.wall_time), FormatTime(round.harvest_time),
                  FormatTime(round.transfer_time),
                  FormatCount(round.remaining_page_count),
                  FormatCount(round.in_flight_page_count)});
  }
  return table.ToString();
}

// The cost of each round for the daemon and the guest.
std::string CostTable(const MigrationReport& report) {
  Table table({{"ROUND"},
               {"LOCK WAIT", Align::kRight},
               {"MAX HOLD", Align::kRight},
               {"FLUSHES", Align::kRight},
               {"KICKS", Align::kRight},
               {"VCPU STALL", Align::kRight}});
  for (const MigrationRound& round : report.rounds) {
    table.AddRow({round.name, ViewTime(round.cost.lock_wait()),
                  ViewTime(round.cost.max_lock_hold()),
                  FormatCount(round.cost.tlb_flush_count()),
                  FormatCount(round.cost.vcpus_kicked_count()),
                  FormatTime(round.vcpu_stall)});
  }
  return table.ToString();
}

std::string PageTable(const MigrationReport& report) {
  Table table({{"MAPPINGS"},
               {"1G", Align::kRight},
               {"2M", Align::kRight},
               {"4K", Align::kRight}});
  const auto add = [&table](const char* name, const v1::PageCounts& pages) {
    table.AddRow({name, FormatCount(pages.pages_1g_count()),
                  FormatCount(pages.pages_2m_count()),
                  FormatCount(pages.pages_4k_count())});
  };
  add("before the split", report.pages_before);
  add("after the split", report.pages_after_split);
  add("after recovery", report.pages_at_end);
  return table.ToString();
}

std::string Convergence(const MigrationReport& report) {
  if (report.rounds.empty()) return "no rounds were run";
  const MigrationRound& last = report.rounds.back();
  std::string text = absl::StrCat(
      "At ",
      FormatBandwidth(static_cast<double>(report.bandwidth_bytes_per_second)),
      " a downtime of ", FormatTime(report.downtime_target), " moves ",
      FormatBytes(static_cast<int64_t>(
          static_cast<double>(report.bandwidth_bytes_per_second) *
          absl::ToDoubleSeconds(report.downtime_target))),
      ". ");
  if (report.converged) {
    absl::StrAppend(&text,
                    "The dirty set came below that, so the guest was "
                    "stopped: converged.");
  } else {
    absl::StrAppend(
        &text,
        "The dirty set stayed above that in every round: the guest writes "
        "faster than the link takes. It was stopped all the same; a real "
        "controller would slow the guest down or give up.");
  }
  absl::StrAppend(&text, " The last transfer of ", FormatBytes(last.sent_bytes),
                  " and its harvest would have stopped the guest for ",
                  FormatTime(report.estimated_downtime), ".");
  return text;
}

Json ToJson(const v1::PageCounts& pages) {
  return {{"pages_1g_count", pages.pages_1g_count()},
          {"pages_2m_count", pages.pages_2m_count()},
          {"pages_4k_count", pages.pages_4k_count()}};
}

double Seconds(const google::protobuf::Duration& duration) {
  return absl::ToDoubleSeconds(FromProto(duration));
}

Json ToJson(const v1::MmuCost& cost) {
  return {{"wall_seconds", Seconds(cost.wall_time())},
          {"lock_wait_seconds", Seconds(cost.lock_wait())},
          {"max_lock_hold_seconds", Seconds(cost.max_lock_hold())},
          {"tlb_flush_count", cost.tlb_flush_count()},
          {"vcpus_kicked_count", cost.vcpus_kicked_count()},
          {"sptes_visited_count", cost.sptes_visited_count()}};
}

Json ToJson(const MigrationRound& round) {
  return {{"name", round.name},
          {"epoch", round.epoch},
          {"page_count", round.page_count},
          {"zero_page_count", round.zero_page_count},
          {"sent_bytes", round.sent_bytes},
          {"acknowledged_page_count", round.acknowledged_page_count},
          {"remaining_page_count", round.remaining_page_count},
          {"in_flight_page_count", round.in_flight_page_count},
          {"wall_seconds", absl::ToDoubleSeconds(round.wall_time)},
          {"harvest_seconds", absl::ToDoubleSeconds(round.harvest_time)},
          {"transfer_seconds", absl::ToDoubleSeconds(round.transfer_time)},
          {"vcpu_stall_seconds", absl::ToDoubleSeconds(round.vcpu_stall)},
          {"resume_count", round.resume_count},
          {"cost", ToJson(round.cost)}};
}

Json ToJson(const OrderOutcome& outcome) {
  return {
      {"workload", outcome.workload},
      {"order", outcome.order},
      {"sent_page_count", outcome.sent_page_count},
      {"resent_page_count", outcome.resent_page_count},
      {"sent_bytes", outcome.sent_bytes},
      {"migration_seconds", absl::ToDoubleSeconds(outcome.migration_time)},
      {"estimated_downtime_seconds", absl::ToDoubleSeconds(outcome.downtime)},
      {"round_count", outcome.round_count},
      {"converged", outcome.converged},
      {"equal", outcome.equal}};
}

// The gain of the order.
std::string Orders(const MigrationReport& report) {
  if (report.orders.empty()) return "";
  return absl::StrCat(
      "\nThe order, in short migrations of a guest that repeats ",
      report.orders.front().workload, ":\n\n", OutcomeTable(report.orders),
      "\n", OutcomeGain(report.orders));
}

Json ToJson(const PageDifference& difference) {
  return {{"gpa_bytes", difference.gpa_bytes},
          {"gfn", difference.gfn},
          {"slot", difference.slot},
          {"page_of_slot", difference.page_of_slot},
          {"first_byte", difference.first_byte},
          {"byte_count", difference.byte_count},
          {"in_guest", difference.in_guest},
          {"in_copy", difference.in_copy}};
}

}  // namespace

int64_t SentBytes(const MigrationReport& report) {
  int64_t bytes = 0;
  for (const MigrationRound& round : report.rounds) bytes += round.sent_bytes;
  return bytes;
}

std::string ToText(const MigrationReport& report) {
  KeyValues guest;
  guest.Add("guest",
            absl::StrCat(report.vm, ", ", FormatBytes(report.memory_bytes),
                         ", ", report.vcpu_count, " vCPUs running ",
                         report.trace, report.mmu == "tdp" ? "" : ", mmu ",
                         report.mmu == "tdp" ? "" : report.mmu));
  guest.Add("guest did",
            absl::StrCat(FormatCount(report.access_count), " accesses, ",
                         FormatCount(report.write_count), " writes, ",
                         FormatCount(report.fault_count), " faults"));
  guest.Add("split",
            absl::StrCat(
                FormatCount(report.splits.split_1g_count()), " of 1G, ",
                FormatCount(report.splits.split_2m_count()), " of 2M in ",
                FormatTime(report.split_time), ", throttled for ",
                FormatTime(report.split_throttled), "; max hold ",
                ViewTime(report.split_cost.max_lock_hold()), ", ",
                FormatCount(report.split_cost.tlb_flush_count()), " flushes"));
  guest.Add("dirty log",
            absl::StrCat(
                report.log_id, ", owned by ", report.owner,
                report.former_owner.empty()
                    ? ""
                    : absl::StrCat(", taken over from ", report.former_owner)));
  guest.Add("log on",
            absl::StrCat(ViewTime(report.start_cost.wall_time()), ", max hold ",
                         ViewTime(report.start_cost.max_lock_hold()), ", ",
                         FormatCount(report.start_cost.tlb_flush_count()),
                         " flushes"));
  const int64_t mapped = report.young_page_count + report.old_page_count;
  guest.Add(
      "young pages",
      absl::StrCat(FormatCount(report.young_page_count), " of ",
                   FormatCount(mapped), " (",
                   FormatShareOf(report.young_page_count, mapped), ", ",
                   FormatBytes(report.young_page_count * kPageBytes),
                   ") were used within ", FormatTime(report.young_since)));
  guest.Add(
      "sent",
      absl::StrCat(
          FormatCount(report.sent_page_count), " pages, ",
          FormatCount(report.resent_page_count), " of them again, ",
          FormatBytes(SentBytes(report)), " in ",
          FormatTime(report.migration_time), "; order ", report.order,
          report.heat_problem.empty()
              ? ""
              : absl::StrCat(" (not always: ", report.heat_problem, ")")));
  guest.Add("total time", FormatTime(report.total_time));
  if (!report.metrics_address.empty()) {
    guest.Add("metrics", report.metrics_address);
  }
  return absl::StrCat(guest.ToString(), "\n", PageTable(report), "\n",
                      RoundTable(report), "\n", CostTable(report), "\n",
                      Convergence(report), "\n", Orders(report));
}

std::string Verdict(const MigrationReport& report) {
  if (report.equal) {
    return absl::StrCat(
        "guest memory and copy are equal: ", report.compared_bytes, " bytes\n");
  }
  std::string text;
  for (const PageDifference& difference : report.differences) {
    absl::StrAppend(&text, "differs: ", ToString(difference), "\n");
  }
  if (report.compared_bytes != report.memory_bytes) {
    absl::StrAppend(&text, "only ", report.compared_bytes, " of ",
                    report.memory_bytes, " bytes were compared\n");
  }
  absl::StrAppend(&text,
                  "guest memory and copy differ: ", report.different_page_count,
                  " pages of ", report.memory_bytes / kPageBytes, "\n");
  return text;
}

std::string ToJson(const MigrationReport& report) {
  Json json;
  json["schema"] = "mmud.migration_report/3";
  json["vm"] = report.vm;
  json["mmu"] = report.mmu;
  json["trace"] = report.trace;
  json["memory_bytes"] = report.memory_bytes;
  json["vcpu_count"] = report.vcpu_count;
  json["bandwidth_bytes_per_second"] = report.bandwidth_bytes_per_second;
  json["downtime_target_seconds"] =
      absl::ToDoubleSeconds(report.downtime_target);
  json["mapped_pages"] = {{"before_split", ToJson(report.pages_before)},
                          {"after_split", ToJson(report.pages_after_split)},
                          {"after_recovery", ToJson(report.pages_at_end)}};
  json["split"] = {
      {"split_1g_count", report.splits.split_1g_count()},
      {"split_2m_count", report.splits.split_2m_count()},
      {"wall_seconds", absl::ToDoubleSeconds(report.split_time)},
      {"throttled_seconds", absl::ToDoubleSeconds(report.split_throttled)},
      {"cost", ToJson(report.split_cost)}};
  json["dirty_log"] = {{"log_id", report.log_id},
                       {"owner", report.owner},
                       {"former_owner", report.former_owner}};
  json["start_dirty_log"] = {{"cost", ToJson(report.start_cost)}};
  json["rounds"] = Json::array();
  for (const MigrationRound& round : report.rounds) {
    json["rounds"].push_back(ToJson(round));
  }
  json["converged"] = report.converged;
  json["estimated_downtime_seconds"] =
      absl::ToDoubleSeconds(report.estimated_downtime);
  json["sent"] = {
      {"order", report.order},
      {"heat_problem", report.heat_problem},
      {"page_count", report.sent_page_count},
      {"resent_page_count", report.resent_page_count},
      {"size_bytes", SentBytes(report)},
      {"learning_seconds", absl::ToDoubleSeconds(report.learning_time)},
      {"migration_seconds", absl::ToDoubleSeconds(report.migration_time)}};
  json["orders"] = Json::array();
  for (const OrderOutcome& outcome : report.orders) {
    json["orders"].push_back(ToJson(outcome));
  }
  json["aging"] = {
      {"young_page_count", report.young_page_count},
      {"old_page_count", report.old_page_count},
      {"window_seconds", absl::ToDoubleSeconds(report.young_since)}};
  json["guest"] = {{"access_count", report.access_count},
                   {"write_count", report.write_count},
                   {"fault_count", report.fault_count}};
  json["comparison"] = {{"equal", report.equal},
                        {"compared_bytes", report.compared_bytes},
                        {"different_page_count", report.different_page_count},
                        {"differences", Json::array()}};
  for (const PageDifference& difference : report.differences) {
    json["comparison"]["differences"].push_back(ToJson(difference));
  }
  json["total_seconds"] = absl::ToDoubleSeconds(report.total_time);
  json["metrics_address"] = report.metrics_address;
  return json.dump(2) + "\n";
}

}  // namespace mmud::client
