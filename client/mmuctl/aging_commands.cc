// mmuctl age.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmuctl/aging_views.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "mmu_core/base/bits.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {
namespace {

struct AgeArguments {
  v1::AgeRangeRequest request;
  std::vector<GpaRange> ranges;
  bool clear = false;
  bool may_lock = false;
  bool fast_or_fail = false;
  v1::PageSize granularity = v1::PAGE_SIZE_UNSPECIFIED;
  bool map = false;
};

// One character for each 64th of a range. It shows how much of that part is
// young.
std::string Map(const v1::YoungBitmap& young) {
  constexpr int kCells = 64;
  constexpr char kShades[] = " .:-=+*#";
  constexpr int kLastShade = 7;
  const int64_t bytes = static_cast<int64_t>(young.bitmap().size());
  std::string map;
  for (int cell = 0; cell < kCells; ++cell) {
    const int64_t first = bytes * cell / kCells;
    const int64_t last =
        std::min(bytes, std::max(first + 1, bytes * (cell + 1) / kCells));
    const auto bits = static_cast<int64_t>(mmu::CountBits(
        absl::string_view(young.bitmap()).substr(first, last - first)));
    const int64_t all = (last - first) * 8;
    // The cell is blank only if no page of its part is young.
    map +=
        kShades[bits == 0 || all == 0 ? 0 : 1 + bits * (kLastShade - 1) / all];
  }
  return map;
}

absl::Status Age(Context& context, Client& client,
                 const AgeArguments& arguments) {
  v1::AgeRangeRequest request = arguments.request;
  for (const GpaRange& range : arguments.ranges) {
    *request.add_ranges() = ToExtent(range);
  }
  request.set_mode(arguments.clear ? v1::AGING_MODE_TEST_AND_CLEAR
                                   : v1::AGING_MODE_TEST);
  if (arguments.may_lock) {
    request.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  }
  if (arguments.fast_or_fail) request.set_slow_mmus(v1::SLOW_MMUS_REFUSE);
  request.set_granularity(arguments.granularity);
  const auto response = client.aging().AgeRange(request);
  if (!response.ok()) return response.status();
  Table table({{"GPA", Align::kRight},
               {"SIZE", Align::kRight},
               {"YOUNG UNITS", Align::kRight},
               {arguments.map ? "MAP" : ""}});
  for (const v1::YoungBitmap& young : response->young()) {
    const auto units = static_cast<int64_t>(mmu::CountBits(young.bitmap()));
    table.AddRow({FormatGpa(young.range().gpa_bytes()),
                  FormatBytes(young.range().size_bytes()), FormatCount(units),
                  arguments.map ? absl::StrCat("|", Map(young), "|") : ""});
  }
  const int64_t mapped =
      response->young_page_count() + response->old_page_count();
  return context.Print(
      *response,
      absl::StrCat(table.ToString(),
                   "young: ", FormatCount(response->young_page_count()), " of ",
                   FormatCount(mapped), " mapped pages (",
                   FormatShareOf(response->young_page_count(), mapped), "), ",
                   FormatBytes(response->young_page_count() * kPageBytes),
                   "; units of ", ViewPageSize(response->granularity()),
                   response->mmus().empty() ? "" : "; ",
                   ViewMmus(response->mmus()), "; cost ",
                   ViewCost(response->cost()), "\n"));
}

}  // namespace

void AddAgingCommands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<AgeArguments>();
  CLI::App* command =
      AddCommand(app, "age",
                 "Shows the memory that was accessed since it was last aged, "
                 "and with --clear ages it.",
                 "mmuctl age alpha\n"
                 "mmuctl age alpha --clear --map\n"
                 "mmuctl --json age alpha --range 0+1GiB --granularity 2m");
  AddVm(command, arguments->request.mutable_vm());
  AddRanges(command, "--range", &arguments->ranges,
            "the memory to examine (default: all of it)");
  command->add_flag(
      "--clear", arguments->clear,
      "age the memory, so that the next call shows only new accesses");
  command->add_flag("--may-lock", arguments->may_lock,
                    "also examine MMUs that take a lock for this: shadow "
                    "pages, and stage 2 without hardware_access_flag");
  command
      ->add_flag("--fast-or-fail", arguments->fast_or_fail,
                 "fail if such an MMU is in use, instead of leaving it out")
      ->excludes("--may-lock");
  AddPageSize(command, "--granularity", &arguments->granularity,
              "unit of the answer (default: 4k)");
  command->add_flag("--map", arguments->map, "draw a map of the young memory");
  Run(command, context, arguments, Age);
}

}  // namespace mmud::client
