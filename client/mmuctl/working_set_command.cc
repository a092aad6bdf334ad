// mmuctl workingset.

#include <signal.h>

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
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/heat_map_unit.h"
#include "client/mmuctl/interrupt.h"
#include "client/mmuctl/screen.h"
#include "client/text/error_text.h"
#include "client/text/replace_file.h"
#include "client/text/units.h"
#include "client/working_set/from_api.h"
#include "client/working_set/html_view.h"
#include "client/working_set/picture.h"
#include "client/working_set/terminal_view.h"
#include "client/working_set/timeline.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/common.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

// Of the maps of guest memory, in all memslots together.
constexpr int64_t kTextCells = 1024;
constexpr int64_t kPageCells = 32'768;
constexpr absl::Duration kDefaultInterval = absl::Seconds(5);
constexpr absl::Duration kMinInterval = absl::Milliseconds(100);
// A signal ends the wait for the next reading within this time.
constexpr absl::Duration kPoll = absl::Milliseconds(50);
// Moves to the upper left corner and clears the screen.
constexpr char kClearScreen[] = "\x1b[H\x1b[2J";

struct WorkingSetArguments {
  std::string vm;
  std::vector<absl::Duration> windows;
  v1::PageSize unit = v1::PAGE_SIZE_UNSPECIFIED;
  int width = 64;
  std::optional<absl::Duration> interval;  // with --watch
  std::string html;
  bool forget = false;
};

absl::Status Forget(Context& context, Client& client, const std::string& vm) {
  v1::ForgetWorkingSetRequest request;
  request.set_vm(vm);
  const auto response = client.aging().ForgetWorkingSet(request);
  if (!response.ok()) return response.status();
  return context.Print(*response, absl::StrCat("forgot the generations of ", vm,
                                               " and switched its ager off\n"));
}

// JSON has the heat map only on request, since it is large.
absl::StatusOr<v1::GetWorkingSetRequest> MakeRequest(
    const Context& context, Client& client,
    const WorkingSetArguments& arguments) {
  v1::GetWorkingSetRequest request;
  request.set_vm(arguments.vm);
  for (const absl::Duration window : arguments.windows) {
    *request.add_windows() = ToProto(window);
  }
  request.set_heat_map_unit(arguments.unit);
  if (arguments.unit == v1::PAGE_SIZE_UNSPECIFIED &&
      (!context.json || !arguments.html.empty())) {
    const auto unit = SmallestUnitOf(client, arguments.vm);
    if (!unit.ok()) return unit.status();
    request.set_heat_map_unit(*unit);
  }
  return request;
}

// "page: FILE, 1.2 MiB".
absl::StatusOr<std::string> WritePage(const v1::WorkingSet& working_set,
                                      const Timeline& timeline,
                                      const std::string& path) {
  WorkingSetPicture picture =
      PictureOf(working_set, WallTime::Now(), kPageCells);
  picture.timeline = timeline.Points(mmu::MonotonicTime::Now());
  const std::string page = ViewWorkingSetAsHtml(picture);
  if (absl::Status status = ReplaceFile(path, page); !status.ok()) {
    return status;
  }
  return absl::StrCat("page: ", path, ", ",
                      FormatBytes(static_cast<int64_t>(page.size())), "\n");
}

// Reads the working set once and shows it.
absl::Status ShowOnce(Context& context, Client& client,
                      const WorkingSetArguments& arguments,
                      Timeline* timeline) {
  // Memslots may have changed since the last reading.
  const auto request = MakeRequest(context, client, arguments);
  if (!request.ok()) return request.status();
  const auto response = client.aging().GetWorkingSet(*request);
  if (!response.ok()) return response.status();
  const v1::WorkingSet& working_set = response->working_set();
  timeline->Observe(working_set, mmu::MonotonicTime::Now());
  std::string text =
      ViewInTerminal(PictureOf(working_set, WallTime::Now(), kTextCells),
                     {.cells_per_line = arguments.width,
                      .colour = WritesColours(context) ? TextColour::k256
                                                       : TextColour::kNone});
  if (!arguments.html.empty()) {
    const auto written = WritePage(working_set, *timeline, arguments.html);
    if (!written.ok()) return written.status();
    absl::StrAppend(&text, "\n", *written);
  }
  if (arguments.interval && WritesToTerminal(context)) {
    text = absl::StrCat(kClearScreen, text);
  } else if (arguments.interval) {
    text += "\n";
  }
  return context.Print(*response, text);
}

absl::Status Watch(Context& context, Client& client,
                   const WorkingSetArguments& arguments) {
  // The first signal ends the command between two readings, so that it leaves
  // no temporary file.
  const InterruptNote interrupt("", {SIGINT, SIGTERM});
  Timeline timeline;
  while (interrupt.arrived() == 0) {
    const mmu::MonotonicTime next =
        mmu::MonotonicTime::Now() + *arguments.interval;
    if (absl::Status status = ShowOnce(context, client, arguments, &timeline);
        !status.ok()) {
      return status;
    }
    while (interrupt.arrived() == 0 && mmu::MonotonicTime::Now() < next) {
      absl::SleepFor(kPoll);
    }
  }
  return absl::OkStatus();
}

absl::Status ShowWorkingSet(Context& context, Client& client,
                            const WorkingSetArguments& arguments) {
  if (arguments.forget) return Forget(context, client, arguments.vm);
  if (!arguments.html.empty()) {
    if (absl::Status status = CheckReplaceable(arguments.html); !status.ok()) {
      return UsageError(absl::StrCat("--html: ", status.message()));
    }
  }
  if (arguments.interval) return Watch(context, client, arguments);
  Timeline timeline;
  return ShowOnce(context, client, arguments, &timeline);
}

void AddWindows(CLI::App* command, std::vector<absl::Duration>* windows) {
  AddFiniteTime(
      command, "--window",
      [windows](absl::Duration window) { windows->push_back(window); },
      "show the memory that was accessed in this time; can be given several "
      "times (default: 1m, 10m and 1h)")
      ->expected(1, 16);
}

void AddWatch(CLI::App* command, std::optional<absl::Duration>* interval) {
  command
      ->add_option_function<std::string>(
          "--watch",
          [interval](const std::string& text) {
            if (text.empty()) {
              *interval = kDefaultInterval;
              return;
            }
            const absl::StatusOr<absl::Duration> time = ParseTime(text);
            if (!time.ok()) {
              throw CLI::ValidationError("--watch",
                                         std::string(time.status().message()));
            }
            if (*time < kMinInterval || *time == absl::InfiniteDuration()) {
              throw CLI::ValidationError(
                  "--watch", absl::StrCat("'", text,
                                          "' is not an interval of 100ms or "
                                          "more; give for example 2s"));
            }
            *interval = *time;
          },
          "show it again and again, each TIME (default: 5s), until Ctrl-C")
      ->type_name("[TIME]")
      ->expected(0, 1);
}

}  // namespace

void AddWorkingSetCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<WorkingSetArguments>();
  CLI::App* command = AddCommand(
      app, "workingset",
      "Shows how much memory of a VM was accessed how long ago: the working "
      "set of each window of time, a histogram of ages, and a map of guest "
      "memory. It comes from the generations that mmuctl generation and the "
      "ager have made.",
      "mmuctl ager alpha --on; mmuctl workingset alpha --watch\n"
      "mmuctl workingset alpha --window 30s --window 5m\n"
      "mmuctl workingset alpha --unit 2m --width 128\n"
      "mmuctl workingset alpha --html alpha.html\n"
      "mmuctl workingset alpha --watch 10s --html alpha.html\n"
      "mmuctl --json workingset alpha\n"
      "mmuctl workingset alpha --forget");
  AddVm(command, &arguments->vm);
  AddWindows(command, &arguments->windows);
  AddPageSize(command, "--unit", &arguments->unit,
              "unit of the map, which has the age of its youngest page "
              "(default: the smallest one that the daemon allows; with --json "
              "no map)");
  AddNumber(
      command, "--width", 1, 1024,
      [arguments](int64_t width) {
        arguments->width = static_cast<int>(width);
      },
      "characters in a line of the map, 1 to 1024 (default: 64)");
  AddWatch(command, &arguments->interval);
  command
      ->add_option("--html", arguments->html,
                   "also write all of it to this file, as a page with charts")
      ->type_name("FILE");
  command
      ->add_flag("--forget", arguments->forget,
                 "instead forget all generations, free their memory and "
                 "switch the ager off")
      ->excludes("--window", "--unit", "--width", "--watch", "--html");
  Run(command, context, arguments, ShowWorkingSet);
}

}  // namespace mmud::client
