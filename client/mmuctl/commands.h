// The commands of mmuctl, one file per group.

#ifndef CLIENT_MMUCTL_COMMANDS_H_
#define CLIENT_MMUCTL_COMMANDS_H_

#include "CLI/CLI.hpp"
#include "client/mmuctl/context.h"

namespace mmud::client {

// Each adds its commands to `app`; `context` outlives `app`.
void AddVmCommands(CLI::App& app, Context& context);
void AddMemslotCommands(CLI::App& app, Context& context);
void AddMemoryCommands(CLI::App& app, Context& context);
void AddWorkloadCommands(CLI::App& app, Context& context);
void AddTraceCommands(CLI::App& app, Context& context);
void AddDirtyLogCommands(CLI::App& app, Context& context);
void AddSplitCommands(CLI::App& app, Context& context);
void AddAgingCommands(CLI::App& app, Context& context);
void AddStatsCommands(CLI::App& app, Context& context);
void AddDebugCommands(CLI::App& app, Context& context);
// One command of these, `debug tables`, to the group `debug`.
void AddDebugTables(CLI::App& group, Context& context);
void AddOperationCommands(CLI::App& app, Context& context);
void AddDaemonCommands(CLI::App& app, Context& context);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_COMMANDS_H_
