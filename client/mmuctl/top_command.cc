// mmuctl top.

#include <memory>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/screen.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/progress.h"
#include "client/top/columns.h"
#include "client/top/json_view.h"
#include "client/top/model.h"
#include "client/top/read_sample.h"
#include "client/top/sample.h"
#include "client/top/view.h"
#include "mmu_core/base/clock.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

constexpr absl::Duration kMinInterval = absl::Milliseconds(100);
// Of text that is not for a terminal.
constexpr int kPlainWidth = 120;

struct TopArguments {
  absl::Duration interval = absl::Seconds(2);
  SortKey sort = SortKey::kDirty;
  bool once = false;
};

absl::Status AddSample(Client& client, TopModel* model) {
  absl::StatusOr<TopSample> sample = ReadSample(client);
  if (!sample.ok()) return sample.status();
  model->Add(*std::move(sample));
  return absl::OkStatus();
}

absl::Status Show(Context& context, const TopModel& model,
                  const TopArguments& arguments) {
  if (context.json) return context.Print(TopJson(model, arguments.sort), "");
  ViewOptions view;
  view.width = WritesToTerminal(context) ? TerminalWidth() : kPlainWidth;
  view.sort = arguments.sort;
  view.address = context.address;
  view.interval = arguments.interval;
  return context.Print(Json(), PlainText(ViewOverview(model, view)));
}

absl::Status Top(Context& context, Client& client,
                 const TopArguments& arguments) {
  if (arguments.interval < kMinInterval) {
    return UsageError("--interval must be 100ms or more; give for example 2s");
  }
  TopModel model;
  if (absl::Status status = AddSample(client, &model); !status.ok()) {
    return status;
  }
  do {
    absl::SleepFor(arguments.interval);
    const absl::Status status = AddSample(client, &model);
    // A program that reads one view needs its values; others wait for the
    // daemon to come back.
    if (!status.ok() && (arguments.once || context.json)) return status;
    if (!status.ok()) model.AddFailure(status, mmu::MonotonicTime::Now());
    if (absl::Status shown = Show(context, model, arguments); !shown.ok()) {
      return shown;
    }
  } while (!arguments.once);
  return absl::OkStatus();
}

}  // namespace

void AddTopCommand(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<TopArguments>();
  CLI::App* command = AddCommand(
      app, "top",
      "Shows all VMs again and again: dirty rate and its trend, pages left and "
      "in flight, faults, stalls, locks, operations and conditions.",
      "mmuctl top\n"
      "mmuctl top --interval 500ms --sort stall\n"
      "mmuctl top --once\n"
      "mmuctl top --once --json");
  AddFiniteTime(
      command, "--interval",
      [arguments](absl::Duration interval) { arguments->interval = interval; },
      "time between two samples, 100ms or more (default: 2s)");
  AddChoice(command, "--sort", &arguments->sort, SortKeys(),
            "the order of the VMs (default: dirty); numbers descend");
  command->add_flag("--once", arguments->once,
                    "show the rates of one interval and end");
  Run(command, context, arguments, Top);
}

}  // namespace mmud::client
