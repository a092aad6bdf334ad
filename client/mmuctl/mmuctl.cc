#include "client/mmuctl/mmuctl.h"

#include <algorithm>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/text/error_text.h"

namespace mmud::client {
namespace {

constexpr char kDefaultAddress[] = "unix:/run/mmud/mmud.sock";

using AddCommands = void (*)(CLI::App&, Context&);

// In the order of --help.
constexpr AddCommands kCommands[] = {
    AddVmCommands,       AddMemslotCommands,   AddMemoryCommands,
    AddWorkloadCommands, AddTraceCommands,     AddDirtyLogCommands,
    AddSplitCommands,    AddAgingCommands,     AddStatsCommands,
    AddDebugCommands,    AddOperationCommands, AddDaemonCommands,
};

void AddGlobalFlags(CLI::App& app, Context& context) {
  context.address = kDefaultAddress;
  app.add_option("-a,--address", context.address,
                 "the daemon: unix:/path or host:port (default: "
                 "$MMUD_ADDRESS, or " +
                     std::string(kDefaultAddress) + ")")
      ->envname("MMUD_ADDRESS");
  app.add_flag("--json", context.json, "print JSON, for programs");
  app.add_flag("-q,--quiet", context.quiet, "show no progress");
  AddTime(&app, "--timeout", &context.timeout,
          "how long one call may take (default: 10s to 10m, by its kind)");
}

// The innermost command that was named, for its usage line.
const CLI::App* Innermost(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

std::string FullName(const CLI::App* app) {
  if (app->get_parent() == nullptr) return app->get_name();
  return absl::StrCat(FullName(app->get_parent()), " ", app->get_name());
}

// The first word where a command was expected and none of that name exists;
// "" if the command line went wrong in another way.
std::string UnknownCommand(const CLI::App& app, const CLI::App& innermost) {
  if (innermost.get_require_subcommand_min() == 0) return "";
  // Words that nobody took may be left at any of the parents.
  for (const std::string& word : app.remaining(/*recurse=*/true)) {
    if (word[0] != '-') return word;
  }
  return "";
}

std::string CommandNames(const CLI::App& app) {
  return absl::StrJoin(app.get_subcommands(nullptr), ", ",
                       [](std::string* out, const CLI::App* command) {
                         out->append(command->get_name());
                       });
}

}  // namespace

int RunMmuctl(std::vector<std::string> arguments, std::ostream& out,
              std::ostream& err, ProgressStyle progress) {
  Context context(&out, &err, progress);
  CLI::App app(
      "Steers mmud: virtual machines, dirty logs, huge pages, aging.\n"
      "Each command has its own --help with examples.",
      "mmuctl");
  app.require_subcommand(1);
  // Global flags may stand behind the command too.
  app.fallthrough();
  app.footer(absl::StrCat(
      "examples:\n"
      "  export MMUD_ADDRESS=unix:/run/mmud/mmud.sock\n"
      "  mmuctl vm create alpha --vcpus 2 --memory 4GiB --host-page-size 2m\n"
      "  mmuctl workload start alpha --pattern zipf --rate 100000\n"
      "  mmuctl split start alpha --max-pages-per-second 500000 --watch\n"
      "  mmuctl dirty-log start alpha\n"
      "  mmuctl dirty-log harvest alpha\n"
      "  mmuctl vm list --json\n\n",
      ExitCodeHelp()));
  AddGlobalFlags(app, context);
  for (const AddCommands add : kCommands) add(app, context);

  // CLI11 takes them back to front.
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp& help) {
    app.exit(help, out, err);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    const CLI::App& innermost = *Innermost(&app);
    const std::string unknown = UnknownCommand(app, innermost);
    err << "error: ";
    if (unknown.empty()) {
      err << error.what();
    } else {
      err << FullName(&innermost) << " has no command '" << unknown
          << "'; it has " << CommandNames(innermost);
    }
    err << "\n  fix:     see " << FullName(&innermost) << " --help\n";
    return kExitUsage;
  }
  const absl::Status status = context.action();
  if (!status.ok()) {
    err << RenderError(status, context.address);
    return ExitCodeFor(status);
  }
  return context.exit_code;
}

}  // namespace mmud::client
