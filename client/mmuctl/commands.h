// The commands of mmuctl, one file per group.

#ifndef CLIENT_MMUCTL_COMMANDS_H_
#define CLIENT_MMUCTL_COMMANDS_H_

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "client/mmuctl/context.h"

namespace mmud::client {

// Each adds its commands to `app`; `context` outlives `app`.
void AddVmCommands(CLI::App& app, Context& context);
void AddMemslotCommands(CLI::App& app, Context& context);
void AddMemoryCommands(CLI::App& app, Context& context);
void AddWorkloadCommands(CLI::App& app, Context& context);
void AddTraceCommands(CLI::App& app, Context& context);
void AddDirtyLogCommands(CLI::App& app, Context& context);
// Adds the commands that move or show pages, to the group `dirty-log`.
void AddDirtyPageCommands(CLI::App& group, Context& context);
void AddSplitCommands(CLI::App& app, Context& context);
void AddCompareCommand(CLI::App& app, Context& context);
void AddAgingCommands(CLI::App& app, Context& context);
void AddGenerationCommand(CLI::App& app, Context& context);
void AddAgerCommand(CLI::App& app, Context& context);
void AddWorkingSetCommand(CLI::App& app, Context& context);
void AddHotCommand(CLI::App& app, Context& context);
void AddTopCommand(CLI::App& app, Context& context);
void AddStatsCommands(CLI::App& app, Context& context);
void AddDebugCommands(CLI::App& app, Context& context);
// Adds the command `debug tables`, to the group `debug`.
void AddDebugTables(CLI::App& group, Context& context);
void AddOperationCommands(CLI::App& app, Context& context);
void AddDaemonCommands(CLI::App& app, Context& context);
void AddCallCommands(CLI::App& app, Context& context);
// `app` is the root.
void AddShellCommands(CLI::App& app, Context& context);

// Usage errors that list the existing commands: `word` is none of them, or no
// command was given.
absl::Status NoSuchCommand(const CLI::App& command, const std::string& word);
absl::Status NoCommand(const CLI::App& group);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMMANDS_H_
