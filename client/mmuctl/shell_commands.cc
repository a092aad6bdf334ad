// mmuctl help, completion, man: the command tree as text for people and shells.

#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/command_tree.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/completion.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/man_page.h"
#include "client/text/error_text.h"

namespace mmud::client {
namespace {

struct HelpArguments {
  const CLI::App* root;
  std::vector<std::string> words;
  bool all = false;
};

// "create, get, list".
std::string NamesBelow(const CLI::App& command) {
  return absl::StrJoin(CommandsOf(command), ", ",
                       [](std::string* out, const CLI::App* each) {
                         out->append(each->get_name());
                       });
}

absl::Status Help(Context& context, const HelpArguments& arguments) {
  const CLI::App* command = arguments.root;
  for (const std::string& word : arguments.words) {
    const CLI::App* below = FindCommand(*command, word);
    if (below == nullptr) return NoSuchCommand(*command, word);
    command = below;
  }
  context.out() << (arguments.all ? CommandList(*command) : HelpOf(*command));
  return absl::OkStatus();
}

absl::Status PrintScript(Context& context, const std::string& shell) {
  const absl::StatusOr<std::string> script = CompletionScript(shell);
  if (!script.ok()) return script.status();
  context.out() << *script;
  return absl::OkStatus();
}

}  // namespace

absl::Status NoSuchCommand(const CLI::App& command, const std::string& word) {
  const std::string below = NamesBelow(command);
  return UsageError(absl::StrCat(FullName(command), " has no command '", word,
                                 "'", below.empty() ? "" : "; it has ", below));
}

absl::Status NoCommand(const CLI::App& group) {
  return UsageError(absl::StrCat(
      FullName(group), " needs one of its commands: ", NamesBelow(group)));
}

void AddShellCommands(CLI::App& app, Context& context) {
  auto help = std::make_shared<HelpArguments>();
  help->root = &app;
  CLI::App* command = AddCommand(
      app, "help", "Shows the help of a command, as COMMAND --help does.",
      "mmuctl help\n"
      "mmuctl help split start\n"
      "mmuctl help --all");
  command->add_option("COMMAND", help->words, "the command, word by word")
      ->type_name("WORD")
      ->expected(0, 8);
  command->add_flag("--all", help->all, "list every command instead");
  Run(command, context, help, Help);

  auto shell = std::make_shared<std::string>();
  command = AddCommand(
      app, "completion",
      "Prints a script for a shell, which completes commands, options, and "
      "names of VMs and operations.",
      "source <(mmuctl completion bash)                 (bash, in ~/.bashrc)\n"
      "source <(mmuctl completion zsh)    (zsh, in ~/.zshrc, after compinit)\n"
      "mmuctl completion fish | source           (fish, in its config.fish)");
  AddChoice(command, "SHELL", shell.get(),
            {{"bash", std::string("bash")},
             {"zsh", std::string("zsh")},
             {"fish", std::string("fish")}},
            "the shell")
      ->required();
  Run(command, context, shell, PrintScript);

  command =
      AddCommand(app, "man", "Prints the manual page, in the language of man.",
                 "mmuctl man | man -l -\n"
                 "mmuctl man > /usr/local/share/man/man1/mmuctl.1");
  command->callback([&app, &context] {
    context.action = [&app, &context] {
      context.out() << ManPage(app);
      return absl::OkStatus();
    };
  });
}

}  // namespace mmud::client
