// The declared commands of mmuctl. Help, the manual page and shell completion
// are made from them, so none of these can miss a command.

#ifndef CLIENT_MMUCTL_COMMAND_TREE_H_
#define CLIENT_MMUCTL_COMMAND_TREE_H_

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace mmud::client {

// "mmuctl vm create".
std::string FullName(const CLI::App& command);

// The direct sub-commands, in the order of --help.
std::vector<const CLI::App*> CommandsOf(const CLI::App& command);

// The direct sub-command with this name or alias; null if there is none.
const CLI::App* FindCommand(const CLI::App& parent, const std::string& word);

// Calls `visit` with `root` and all commands below it, groups before their
// commands.
void ForEachCommand(const CLI::App& root,
                    const std::function<void(const CLI::App&)>& visit);

// The positional arguments, in their order.
std::vector<const CLI::Option*> PositionalsOf(const CLI::App& command);
// The options with dashes, in the order of their declarations.
std::vector<const CLI::Option*> FlagsOf(const CLI::App& command);

// The option of `command` or of a parent that `word`, "--slot" or "-w", names;
// null if there is none.
const CLI::Option* FindFlag(const CLI::App& command, const std::string& word);

bool TakesValue(const CLI::Option& option);

// The allowed words of an option that takes one of a few.
std::vector<std::string> ChoicesOf(const CLI::Option& option);

// "-w, --watch", "--backing anonymous|memfd", "VM".
std::string TermOf(const CLI::Option& option);

// "mmuctl vm get [OPTIONS] VM".
std::string UsageOf(const CLI::App& command);

// The description up to its first full stop.
std::string SummaryOf(const CLI::App& command);

// `root` and every command below it that is not a group, each with its summary,
// in lines of at most kHelpWidth columns. A continued line begins with blanks.
std::string CommandList(const CLI::App& root);

// Help of one command in lines of at most kHelpWidth columns.
std::string HelpOf(const CLI::App& command);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMMAND_TREE_H_
