#include "client/mmuctl/mmuctl.h"

#include <algorithm>
#include <cstdlib>
#include <istream>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/command_tree.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/completion.h"
#include "client/mmuctl/context.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "client/text/wrap.h"
#include "nlohmann/json.hpp"
#include "proto/mmud/v1/default_address.h"
#include "proto/mmud/v1/release.h"

namespace mmud::client {
namespace {

using AddCommands = void (*)(CLI::App&, Context&);

// The command that the scripts of `mmuctl completion` call.
constexpr char kComplete[] = "__complete";

// In the order of --help.
constexpr AddCommands kCommands[] = {
    AddVmCommands,        AddMemslotCommands,   AddMemoryCommands,
    AddWorkloadCommands,  AddTraceCommands,     AddDirtyLogCommands,
    AddSplitCommands,     AddCompareCommand,    AddAgingCommands,
    AddGenerationCommand, AddAgerCommand,       AddWorkingSetCommand,
    AddHotCommand,        AddTopCommand,        AddStatsCommands,
    AddDebugCommands,     AddOperationCommands, AddDaemonCommands,
    AddCallCommands,      AddShellCommands,
};

void AddGlobalFlags(CLI::App& app, Context& context) {
  app.set_version_flag("--version", absl::StrCat("mmuctl ", v1::kRelease),
                       "print the version");
  app.add_option("-a,--address", context.address,
                 absl::StrCat("the daemon: unix:/path or host:port (default: "
                              "$MMUD_ADDRESS, or ",
                              v1::kDefaultAddress, ")"))
      ->envname("MMUD_ADDRESS")
      ->type_name("ADDRESS");
  app.add_flag("--json", context.json,
               "print one JSON object, for programs; errors are JSON too, on "
               "standard error");
  app.add_flag("-q,--quiet", context.quiet, "show no progress");
  AddTime(&app, "--timeout", &context.timeout,
          "limit on one call, or on waiting for an operation (default: calls "
          "10s to 10m, depending on their kind; waits have no limit)");
}

// The innermost command that was named, for its usage line.
const CLI::App* Innermost(const CLI::App* app) {
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return app;
}

bool IsOption(const std::string& word) {
  return word.size() > 1 && word[0] == '-';
}

// Whether --json was given. Also works for a command line that cannot be
// parsed.
bool WantsJson(const std::vector<std::string>& arguments) {
  const auto end = std::find(arguments.begin(), arguments.end(), "--");
  return std::find(arguments.begin(), end, "--json") != end;
}

std::string Examples() {
  std::string text = "examples:\n";
  for (const char* line :
       {"mmuctl vm create alpha --vcpus 2 --memory 4GiB --host-page-size 2m",
        "mmuctl workload start alpha --pattern zipf --rate 100000",
        "mmuctl split start alpha --max-pages-per-second 500000 --watch",
        "mmuctl dirty-log start alpha", "mmuctl dirty-log harvest alpha",
        "mmuctl vm list --json"}) {
    absl::StrAppend(&text, WrapCommand(line, kHelpWidth, 2), "\n");
  }
  return text;
}

void Declare(CLI::App& app, Context& context) {
  app.formatter_fn([](const CLI::App* command, std::string,
                      CLI::AppFormatMode) { return HelpOf(*command); });
  app.set_help_flag("-h,--help", "show this text");
  app.require_subcommand(1);
  // Global flags may follow the command.
  app.fallthrough();
  app.footer(absl::StrCat(Examples(), "\n", ExitCodeHelp()));
  AddGlobalFlags(app, context);
  for (const AddCommands add : kCommands) add(app, context);
}

// Reports unexpected words first, then missing ones.
absl::Status ParseError(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& innermost = *Innermost(&app);
  const bool is_group = innermost.get_require_subcommand_min() > 0;
  // A word that no command accepted is stored at one of the command's parents.
  for (const std::string& word : app.remaining(/*recurse=*/true)) {
    if (IsOption(word)) {
      return UsageError(
          absl::StrCat(FullName(innermost), " has no option '", word, "'"));
    }
    if (is_group) return NoSuchCommand(innermost, word);
  }
  if (is_group && error.get_name() == "RequiredError") {
    return NoCommand(innermost);
  }
  // Options whose value is not a number have their own parsers, so a conversion
  // error is about a number.
  if (error.get_name() == "ConversionError") {
    return UsageError(absl::StrCat(error.what(), ", which is not a number"));
  }
  return UsageError(error.what());
}

absl::Status Act(Context& context) {
  for (const auto& before : context.before_action) {
    if (absl::Status status = before(); !status.ok()) return status;
  }
  return context.action();
}

// Reports an error of the command line or of the work, and returns its exit
// code.
int Report(Context& context, const absl::Status& status,
           const std::string& fix) {
  const int exit_code =
      context.signal != 0 ? 128 + context.signal : ExitCodeFor(status);
  const std::string mmuctl = context.CommandStart();
  if (context.json) {
    Json json = ErrorJson(status, context.address, mmuctl);
    json["error"]["exit_code"] = exit_code;
    if (!fix.empty()) json["error"]["fix"] = fix;
    context.err() << JsonText(json);
  } else {
    context.err() << RenderError(status, context.address, mmuctl);
    if (!fix.empty()) context.err() << "  fix:     " << fix << "\n";
  }
  return exit_code;
}

}  // namespace

int RunMmuctl(std::vector<std::string> arguments, std::istream& in,
              std::ostream& out, std::ostream& err, ProgressStyle progress) {
  Context context(&in, &out, &err, progress);
  CLI::App app(
      "Steers mmud: virtual machines, dirty logs, huge pages, aging.\n"
      "Each command has its own --help with examples.",
      "mmuctl");
  Declare(app, context);
  if (!arguments.empty() && arguments.front() == kComplete) {
    const char* address = std::getenv("MMUD_ADDRESS");
    if (address != nullptr) context.address = address;
    arguments.erase(arguments.begin());
    if (!arguments.empty() && arguments.front() == "--") {
      arguments.erase(arguments.begin());
    }
    out << CompletionText(Complete(app, context, arguments)) << std::flush;
    return kExitOk;
  }
  context.json = WantsJson(arguments);

  // CLI11 expects the arguments in reverse order.
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp& help) {
    out << HelpOf(*Innermost(&app));
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    out << version.what() << "\n";
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    return Report(context, ParseError(app, error),
                  absl::StrCat("see ", FullName(*Innermost(&app)), " --help"));
  }
  const absl::Status status = Act(context);
  if (!status.ok()) return Report(context, status, "");
  return context.exit_code;
}

}  // namespace mmud::client
