// The commands of mmuctl as they were declared: what help, the manual page and
// shell completion are made from, so that none of them can miss a command.

#ifndef CLIENT_MMUCTL_COMMAND_TREE_H_
#define CLIENT_MMUCTL_COMMAND_TREE_H_

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace mmud::client {

// "mmuctl vm create".
std::string FullName(const CLI::App& command);

// The commands right below, in the order of --help.
std::vector<const CLI::App*> CommandsOf(const CLI::App& command);

// The command right below of this name or alias; null if there is none.
const CLI::App* FindCommand(const CLI::App& parent, const std::string& word);

// Calls `visit` with `root` and all commands below it, groups before what is in
// them.
void ForEachCommand(const CLI::App& root,
                    const std::function<void(const CLI::App&)>& visit);

// What stands at a place of its own, in that order.
std::vector<const CLI::Option*> PositionalsOf(const CLI::App& command);
// What has a name with dashes, in the order it was declared.
std::vector<const CLI::Option*> FlagsOf(const CLI::App& command);

// The option of `command` or of a parent that `word`, "--slot" or "-w", names;
// null if there is none.
const CLI::Option* FindFlag(const CLI::App& command, const std::string& word);

bool TakesValue(const CLI::Option& option);

// The words that are allowed, of an option that takes one of a few.
std::vector<std::string> ChoicesOf(const CLI::Option& option);

// "-w, --watch", "--backing anonymous|memfd", "VM".
std::string TermOf(const CLI::Option& option);

// "mmuctl vm get [OPTIONS] VM".
std::string UsageOf(const CLI::App& command);

// The description up to its first full stop.
std::string SummaryOf(const CLI::App& command);

// `root` and every command below it that is no group, each with its summary, in
// lines of at most kHelpWidth columns. A line that goes on begins with blanks.
std::string CommandList(const CLI::App& root);

// Help of one command in lines of at most kHelpWidth columns.
std::string HelpOf(const CLI::App& command);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMMAND_TREE_H_
