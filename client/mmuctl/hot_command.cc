// mmuctl hot.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "client/working_set/age_text.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"

namespace mmud::client {
namespace {

// The most that ListHotRanges returns in one page.
constexpr int64_t kMaxPage = 10'000;
constexpr int64_t kMaxLimit = 10'000'000;

struct HotArguments {
  std::string vm;
  bool coldest_first = false;
  bool no_never_young = false;
  v1::PageSize granularity = v1::PAGE_SIZE_UNSPECIFIED;
  int64_t limit = 100;
};

struct Ranges {
  v1::ListHotRangesResponse response;
  bool more = false;  // than the limit allows
};

absl::StatusOr<Ranges> ListRanges(Client& client,
                                  const HotArguments& arguments) {
  v1::ListHotRangesRequest request;
  request.set_vm(arguments.vm);
  request.set_order(arguments.coldest_first ? v1::HEAT_ORDER_COLDEST_FIRST
                                            : v1::HEAT_ORDER_HOTTEST_FIRST);
  request.set_exclude_never_young(arguments.no_never_young);
  request.set_granularity(arguments.granularity);
  // All pages must be requested with the same size.
  request.set_page_size(
      static_cast<int32_t>(std::min(arguments.limit, kMaxPage)));
  Ranges all;
  auto& ranges = *all.response.mutable_ranges();
  do {
    const auto page = client.aging().ListHotRanges(request);
    if (!page.ok()) return page.status();
    ranges.MergeFrom(page->ranges());
    all.response.set_newest_generation(page->newest_generation());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && ranges.size() < arguments.limit);
  all.more = !request.page_token().empty() || ranges.size() > arguments.limit;
  if (const int limit = static_cast<int>(arguments.limit);
      ranges.size() > limit) {
    ranges.DeleteSubrange(limit, ranges.size() - limit);
  }
  return all;
}

// The age of memory that `generation` found young last.
std::string AgeOf(int64_t generation, const v1::WorkingSet& working_set) {
  if (generation == 0) return "never young";
  for (const v1::AgeBin& bin : working_set.bins()) {
    if (bin.generation() != generation) continue;
    return FormatAgeRange(FromProto(bin.min_age()),
                          bin.has_max_age() ? FromProto(bin.max_age())
                                            : absl::InfiniteDuration());
  }
  // It was forgotten since the range was listed.
  return "unknown";
}

std::string ViewRanges(const Ranges& ranges,
                       const v1::WorkingSet& working_set) {
  const v1::ListHotRangesResponse& response = ranges.response;
  Table table({{"GPA", Align::kRight},
               {"SIZE", Align::kRight},
               {"SLOT", Align::kRight},
               {"GENERATION", Align::kRight},
               {"AGE"}});
  int64_t bytes = 0;
  for (const v1::HotRange& range : response.ranges()) {
    bytes += range.extent().size_bytes();
    table.AddRow(
        {FormatGpa(range.extent().gpa_bytes()),
         FormatBytes(range.extent().size_bytes()), absl::StrCat(range.slot()),
         range.generation() == 0 ? "-" : absl::StrCat(range.generation()),
         AgeOf(range.generation(), working_set)});
  }
  return absl::StrCat(
      table.ToString(), FormatCount(response.ranges_size()), " ranges, ",
      FormatBytes(bytes), "; the newest generation is ",
      response.newest_generation(),
      ranges.more ? "; there are more ranges (--limit)" : "", "\n");
}

absl::Status Hot(Context& context, Client& client,
                 const HotArguments& arguments) {
  const absl::StatusOr<Ranges> ranges = ListRanges(client, arguments);
  if (!ranges.ok()) return ranges.status();
  v1::WorkingSet working_set;
  if (!context.json) {
    v1::GetWorkingSetRequest request;
    request.set_vm(arguments.vm);
    absl::StatusOr<v1::GetWorkingSetResponse> answer =
        client.aging().GetWorkingSet(request);
    if (!answer.ok()) return answer.status();
    working_set = std::move(*answer->mutable_working_set());
  }
  return context.Print(ranges->response, ViewRanges(*ranges, working_set));
}

}  // namespace

void AddHotCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<HotArguments>();
  CLI::App* command = AddCommand(
      app, "hot",
      "Lists the memory of a VM by heat: the memory that was accessed last "
      "comes first.",
      "mmuctl hot alpha\n"
      "mmuctl hot alpha --granularity 2m --limit 20\n"
      "mmuctl hot alpha --coldest-first --no-never-young\n"
      "mmuctl --json hot alpha --limit 100000");
  AddVm(command, &arguments->vm);
  command->add_flag("--coldest-first", arguments->coldest_first,
                    "begin with memory that was never found young");
  AddPageSize(command, "--granularity", &arguments->granularity,
              "unit of memory, which has the age of its youngest page "
              "(default: 4k)");
  command->add_flag("--no-never-young", arguments->no_never_young,
                    "leave out memory that was never found young");
  AddNumber(
      command, "--limit", 1, kMaxLimit,
      [arguments](int64_t limit) { arguments->limit = limit; },
      "maximum number of ranges to list (default: 100)");
  Run(command, context, arguments, Hot);
}

}  // namespace mmud::client
