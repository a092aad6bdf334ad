#include "client/comparison/columns.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/comparison/plan.h"
#include "client/comparison/stalls.h"
#include "client/text/units.h"
#include "client/text/wrap.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {
namespace {

constexpr char kNone[] = "-";
constexpr int kHelpIndent = 6;

std::string ViewSplitCounts(const v1::SplitCounts& splits) {
  return FormatCount(splits.split_2m_count() + splits.split_1g_count());
}

template <int kPerMille>
std::string StallCell(const CombinationResult& result) {
  const std::optional<Percentile> percentile =
      PercentileOf(result.stalls, kPerMille);
  if (!percentile.has_value()) return kNone;
  if (percentile->at_most == absl::InfiniteDuration()) {
    return absl::StrCat("> ", FormatTime(percentile->more_than));
  }
  return FormatTime(percentile->at_most);
}

std::string PassCell(const CombinationResult& result) {
  return absl::StrCat(result.pass.limit_reached ? "> " : "",
                      FormatTime(result.pass.time));
}

std::string StallSumCell(const CombinationResult& result) {
  absl::Duration sum;
  for (const auto& [cause, time] : result.stall_times) sum += time;
  return FormatTime(sum);
}

std::string FaultCell(const CombinationResult& result) {
  return FormatCount(FaultCount(result));
}

std::string PaceCell(const CombinationResult& result) {
  if (!result.split_ahead.has_value()) return kNone;
  const std::optional<int64_t> pace = PagesPerSecond(*result.split_ahead);
  return pace.has_value() ? FormatCount(*pace) : kNone;
}

std::string CountCell(const std::optional<int64_t>& count) {
  return count.has_value() ? FormatCount(*count) : std::string(kNone);
}

ResultColumn FlushColumn(FlushBy by) {
  if (by == FlushBy::kTlbi) {
    return {.title = "TLBIS",
            .meaning =
                "with stage2, instead of FLUSHES: TLB invalidate instructions "
                "since before the log that were broadcast to all vCPUs",
            .cell = [](const CombinationResult& result) {
              return CountCell(result.tlbi_count);
            }};
  }
  return {.title = "FLUSHES",
          .meaning =
              "remote TLB flushes that were requested since before the log, "
              "whether or not a vCPU was running",
          .cell = [](const CombinationResult& result) {
            return CountCell(result.flush_request_count);
          }};
}

}  // namespace

std::vector<ResultColumn> NameColumns() {
  return {
      {.title = "VCPUS",
       .meaning = "number of vCPUs",
       .cell =
           [](const CombinationResult& result) {
             return absl::StrCat(result.combination.vcpu_count);
           }},
      {.title = "WRITES",
       .meaning = "share of the accesses that write",
       .cell =
           [](const CombinationResult& result) {
             return ViewFraction(result.combination.write_fraction);
           }},
      {.title = "POLICY",
       .meaning = "lazy: the guest's writes split huge pages; eager: enabling "
                  "the log splits them; throttled: they are split before the "
                  "log is enabled, at a limited pace",
       .align = Align::kLeft,
       .cell =
           [](const CombinationResult& result) {
             return PolicyWord(result.combination.policy);
           }},
  };
}

std::vector<ResultColumn> TimeColumns() {
  return {
      {.title = "SPLIT AHEAD",
       .meaning = "time of the split before the log is enabled (policy "
                  "throttled), waits for its throttle included",
       .cell =
           [](const CombinationResult& result) {
             return result.split_ahead.has_value()
                        ? FormatTime(result.split_ahead->time)
                        : std::string(kNone);
           }},
      {.title = "ENABLE",
       .meaning = "time to enable the log, the eager split included",
       .cell =
           [](const CombinationResult& result) {
             return FormatTime(result.enabling.time);
           }},
      {.title = "DIRTY",
       .meaning = "time until all memory that the guest writes is dirty: each "
                  "vCPU accesses each page of its share once, at full speed; "
                  "\"> 60.0 s\" if it ended at the time limit",
       .cell = PassCell},
      {.title = "P50 <=",
       .meaning = "half of the page faults stalled their vCPU for at most this "
                  "time; an upper bound, since the daemon's histogram has "
                  "buckets up to 1, 4, 16, 64, 200 and 256 us and on by powers "
                  "of 4: the stall is more than a quarter of it, or anything "
                  "up to 1 us; of a sample of the faults",
       .cell = StallCell<500>},
      {.title = "P99 <=",
       .meaning = "99 of 100 faults, in the same way",
       .cell = StallCell<990>},
      {.title = "P99.9 <=",
       .meaning = "999 of 1,000 faults, in the same way",
       .cell = StallCell<999>},
      {.title = "VCPU STALL",
       .meaning = "time that all vCPUs together stood still, for faults, "
                  "mmu_lock and TLB flushes; partly estimated from a sample",
       .cell = StallSumCell},
  };
}

std::vector<ResultColumn> WorkColumns(const GuestMmu& mmu) {
  return {
      {.title = "DIRTY PAGES",
       .meaning = "pages of 4 KiB that are dirty in the end",
       .cell =
           [](const CombinationResult& result) {
             return FormatCount(result.pass.page_count);
           }},
      {.title = "FAULTS",
       .meaning = "page faults since before the log",
       .cell = FaultCell},
      FlushColumn(mmu.flush_by),
      {.title = "AHEAD",
       .meaning = "huge mappings that the split before the log split",
       .cell =
           [](const CombinationResult& result) {
             return result.split_ahead.has_value()
                        ? ViewSplitCounts(result.split_ahead->splits)
                        : std::string(kNone);
           }},
      {.title = "AT ENABLE",
       .meaning = "huge mappings that enabling the log split",
       .cell =
           [](const CombinationResult& result) {
             return ViewSplitCounts(result.enabling.splits);
           }},
      {.title = "BY FAULTS",
       .meaning = "huge mappings that the guest's faults split or dropped: "
                  "those that are gone and that the other splits did not "
                  "count; \"-\" if the guest changes its own tables, since "
                  "mappings then also go for that",
       .cell =
           [](const CombinationResult& result) {
             return result.fault_splits.has_value()
                        ? ViewSplitCounts(*result.fault_splits)
                        : std::string(kNone);
           }},
      {.title = "PAGES/S",
       .meaning = "pace of the split before the log, in pages of 4 KiB",
       .cell = PaceCell},
  };
}

std::string ColumnHelp() {
  std::string text = "columns:\n";
  std::vector<ResultColumn> work = WorkColumns(GuestMmu());
  work.push_back(FlushColumn(FlushBy::kTlbi));
  for (const std::vector<ResultColumn>& columns :
       {NameColumns(), TimeColumns(), work}) {
    for (const ResultColumn& column : columns) {
      absl::StrAppend(
          &text, "  ",
          Wrap(absl::StrCat(column.title, ": ", column.meaning, "."),
               kHelpWidth, kHelpIndent),
          "\n");
    }
  }
  return text;
}

std::string DescribeGuests(const Plan& plan) {
  return absl::StrCat(
      plan.options.mmu->word, ", ", FormatBytes(plan.options.memory_bytes),
      " of memory on ",
      plan.options.huge_page_size == v1::PAGE_SIZE_1G ? "1G" : "2M",
      " pages, seed ", plan.options.seed,
      plan.options.repeat_count == 1
          ? ""
          : absl::StrCat(", the median of ", plan.options.repeat_count,
                         " runs by DIRTY"));
}

std::string HowToRead() {
  return "Each row is one guest. Rows with the same VCPUS and WRITES make the "
         "same accesses and differ only in the policy. Less is better in each "
         "column of times.";
}

std::string Warnings(const Comparison& comparison) {
  std::string text;
  for (const CombinationResult& result : comparison.results) {
    const std::string name = Describe(result.combination);
    if (result.pass.limit_reached) {
      absl::StrAppend(&text, name, ": the pass ended at the time limit, after ",
                      FormatTime(result.pass.time),
                      "; give a longer --time-limit\n");
    }
    if (LacksPages(result)) {
      absl::StrAppend(&text, name, ": the number of dirty pages, ",
                      FormatCount(result.pass.page_count),
                      ", is not that of the pages that the guest wrote\n");
    }
  }
  return text;
}

bool LostPages(const Comparison& comparison) {
  return std::any_of(comparison.results.begin(), comparison.results.end(),
                     LacksPages);
}

}  // namespace mmud::client
