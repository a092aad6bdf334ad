#include "client/mmuctl/command_tree.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/text/wrap.h"

namespace mmud::client {
namespace {

// The column in which descriptions begin.
constexpr int kTermColumns = 28;
// CLI11's group of options for which no group was chosen.
constexpr char kUsualGroup[] = "Options";

std::vector<const CLI::Option*> Options(
    const CLI::App& command,
    const std::function<bool(const CLI::Option&)>& filter) {
  return command.get_options([&filter](const CLI::Option* option) {
    // An option with an empty group name is hidden.
    return !option->get_group().empty() && filter(*option);
  });
}

// "  --vcpus INT              vCPUs (default: 1)".
std::string Entry(const std::string& term, const std::string& description) {
  std::string line = absl::StrCat("  ", term);
  if (description.empty()) return line + "\n";
  if (line.size() + 2 > kTermColumns) {
    absl::StrAppend(&line, "\n", std::string(kTermColumns, ' '));
  } else {
    line.append(kTermColumns - line.size(), ' ');
  }
  return absl::StrCat(line, Wrap(description, kHelpWidth, kTermColumns), "\n");
}

std::string Section(const std::string& title,
                    const std::vector<const CLI::Option*>& options) {
  if (options.empty()) return "";
  std::string text = absl::StrCat("\n", title, ":\n");
  for (const CLI::Option* option : options) {
    absl::StrAppend(&text, Entry(TermOf(*option), option->get_description()));
  }
  return text;
}

}  // namespace

std::string FullName(const CLI::App& command) {
  if (command.get_parent() == nullptr) return command.get_name();
  return absl::StrCat(FullName(*command.get_parent()), " ", command.get_name());
}

std::vector<const CLI::App*> CommandsOf(const CLI::App& command) {
  return command.get_subcommands([](const CLI::App*) { return true; });
}

const CLI::App* FindCommand(const CLI::App& parent, const std::string& word) {
  for (const CLI::App* command : CommandsOf(parent)) {
    if (command->check_name(word)) return command;
  }
  return nullptr;
}

void ForEachCommand(const CLI::App& root,
                    const std::function<void(const CLI::App&)>& visit) {
  visit(root);
  for (const CLI::App* command : CommandsOf(root)) {
    ForEachCommand(*command, visit);
  }
}

std::vector<const CLI::Option*> PositionalsOf(const CLI::App& command) {
  return Options(command,
                 [](const CLI::Option& o) { return o.get_positional(); });
}

std::vector<const CLI::Option*> FlagsOf(const CLI::App& command) {
  return Options(command,
                 [](const CLI::Option& o) { return !o.get_positional(); });
}

const CLI::Option* FindFlag(const CLI::App& command, const std::string& word) {
  for (const CLI::App* app = &command; app != nullptr;
       app = app->get_parent()) {
    for (const CLI::Option* option : FlagsOf(*app)) {
      if (option->check_name(word)) return option;
    }
  }
  return nullptr;
}

bool TakesValue(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

std::vector<std::string> ChoicesOf(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (!TakesValue(option) || !absl::StrContains(type, "|")) return {};
  return absl::StrSplit(type, '|');
}

std::string TermOf(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(/*positional=*/true);
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) {
    names.push_back("-" + name);
  }
  for (const std::string& name : option.get_lnames()) {
    names.push_back("--" + name);
  }
  std::string term = absl::StrJoin(names, ", ");
  if (TakesValue(option)) absl::StrAppend(&term, " ", option.get_type_name());
  if (option.get_items_expected_max() > 1) absl::StrAppend(&term, "...");
  return term;
}

std::string UsageOf(const CLI::App& command) {
  std::string usage = FullName(command);
  if (!FlagsOf(command).empty()) absl::StrAppend(&usage, " [OPTIONS]");
  if (!CommandsOf(command).empty()) absl::StrAppend(&usage, " COMMAND");
  for (const CLI::Option* option : PositionalsOf(command)) {
    std::string term = TermOf(*option);
    if (option->get_items_expected_max() > 1) absl::StrAppend(&term, "...");
    absl::StrAppend(
        &usage, " ",
        option->get_required() ? term : absl::StrCat("[", term, "]"));
  }
  return usage;
}

std::string SummaryOf(const CLI::App& command) {
  const std::string text = command.get_description();
  const size_t end = std::min(text.find(". "), text.find('\n'));
  return std::string(absl::StripSuffix(
      absl::StripTrailingAsciiWhitespace(text.substr(0, end)), "."));
}

std::string CommandList(const CLI::App& root) {
  std::vector<std::pair<std::string, std::string>> rows = {{"COMMAND", "DOES"}};
  ForEachCommand(root, [&rows](const CLI::App& command) {
    if (!CommandsOf(command).empty()) return;
    rows.emplace_back(FullName(command), SummaryOf(command));
  });
  size_t columns = 0;
  for (const auto& [name, does] : rows)
    columns = std::max(columns, name.size());
  columns += 2;
  std::string text;
  for (const auto& [name, does] : rows) {
    absl::StrAppend(&text, name, std::string(columns - name.size(), ' '),
                    Wrap(does, kHelpWidth, static_cast<int>(columns)), "\n");
  }
  return text;
}

std::string HelpOf(const CLI::App& command) {
  std::string text =
      absl::StrCat(Wrap(command.get_description(), kHelpWidth, 0),
                   "\n\nusage: ", Wrap(UsageOf(command), kHelpWidth, 7), "\n");
  absl::StrAppend(&text, Section("arguments", PositionalsOf(command)));
  std::vector<std::string> groups;
  for (const CLI::Option* option : FlagsOf(command)) {
    const std::string& group = option->get_group();
    if (std::find(groups.begin(), groups.end(), group) == groups.end()) {
      groups.push_back(group);
    }
  }
  for (const std::string& group : groups) {
    absl::StrAppend(
        &text, Section(group == kUsualGroup ? "options" : group,
                       Options(command, [&group](const CLI::Option& option) {
                         return !option.get_positional() &&
                                option.get_group() == group;
                       })));
  }
  if (command.get_parent() != nullptr) {
    absl::StrAppend(&text,
                    "\nThe options of mmuctl --help go with every command.\n");
  }
  if (!CommandsOf(command).empty()) absl::StrAppend(&text, "\ncommands:\n");
  for (const CLI::App* below : CommandsOf(command)) {
    std::vector<std::string> names = {below->get_name()};
    names.insert(names.end(), below->get_aliases().begin(),
                 below->get_aliases().end());
    absl::StrAppend(&text,
                    Entry(absl::StrJoin(names, ", "), SummaryOf(*below)));
  }
  if (!command.get_footer().empty()) {
    absl::StrAppend(&text, "\n", command.get_footer(), "\n");
  }
  return text;
}

}  // namespace mmud::client
