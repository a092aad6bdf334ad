// mmuctl op list, get, wait, cancel, delete.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/operation_argument.h"
#include "client/mmuctl/views.h"
#include "client/mmuctl/watch.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/empty.pb.h"
#include "server/base/wall_time.h"

namespace mmud::client {
namespace {

using google::longrunning::ListOperationsRequest;
using google::longrunning::ListOperationsResponse;
using google::longrunning::Operation;

struct ListArguments {
  std::string vm;
  std::string kind;
  bool running = false;
  bool done = false;
  std::string filter;
};

// The method that starts operations of a kind.
const std::map<std::string, std::string>& Methods() {
  static const auto* const methods =
      new std::map<std::string, std::string>{{"dirty-log", "StartDirtyLog"},
                                             {"generation", "CreateGeneration"},
                                             {"recover", "RecoverHugePages"},
                                             {"split", "SplitHugePages"}};
  return *methods;
}

// The flags as a filter of the API.
std::string FilterOf(const ListArguments& arguments) {
  std::vector<std::string> terms;
  if (!arguments.vm.empty()) {
    terms.push_back(absl::StrCat("vm = \"", arguments.vm, "\""));
  }
  if (!arguments.kind.empty()) {
    terms.push_back(absl::StrCat("method = ", arguments.kind));
  }
  if (arguments.running) terms.push_back("done = false");
  if (arguments.done) terms.push_back("done = true");
  if (!arguments.filter.empty()) terms.push_back(arguments.filter);
  return absl::StrJoin(terms, " AND ");
}

// The time that the operation has run so far, or ran in all.
std::string ViewDuration(const OperationView& view) {
  return view.running_time ? FormatTime(*view.running_time) : "";
}

absl::Status List(Context& context, Client& client,
                  const ListArguments& arguments) {
  ListOperationsRequest request;
  request.set_filter(FilterOf(arguments));
  ListOperationsResponse all;
  do {
    const auto page = client.operations().List(request);
    if (!page.ok()) return page.status();
    all.mutable_operations()->MergeFrom(page->operations());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  Table table({{"ID"},
               {"KIND"},
               {"VM"},
               {"STARTED"},
               {"TOOK", Align::kRight},
               {"DONE", Align::kRight},
               {"STATE"},
               {"PROGRESS"}});
  for (const Operation& operation : all.operations()) {
    const OperationView view = ViewOperation(operation);
    table.AddRow({ShortOperationId(operation.name()), view.kind, view.vm,
                  view.start_time ? FormatWallTime(*view.start_time) : "",
                  ViewDuration(view),
                  view.share ? FormatShare(*view.share, 1) : "", view.state,
                  view.words});
  }
  return context.Print(all, table.ToString());
}

absl::Status Get(Context& context, Client& client, const std::string& name) {
  const auto operation = client.operations().Get(name);
  if (!operation.ok()) return operation.status();
  return context.Print(*operation, ViewOperationDetails(*operation));
}

absl::Status Wait(Context& context, const std::string& name) {
  return WatchOperation(context, name);
}

absl::Status Cancel(Context& context, Client& client, const std::string& name) {
  if (absl::Status status = client.operations().Cancel(name); !status.ok()) {
    return status;
  }
  return context.Print(
      google::protobuf::Empty(),
      absl::StrCat("asked ", name, " to stop at its next safe point\n"));
}

absl::Status Delete(Context& context, Client& client, const std::string& name) {
  if (absl::Status status = client.operations().Delete(name); !status.ok()) {
    return status;
  }
  return context.Print(google::protobuf::Empty(),
                       absl::StrCat("deleted ", name, "\n"));
}

}  // namespace

void AddOperationCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "op", "Shows, awaits and cancels long-running operations.",
               "mmuctl op list\n"
               "mmuctl op wait alpha\n"
               "mmuctl op cancel 6f9619ff");
  auto list = std::make_shared<ListArguments>();
  CLI::App* command = AddCommand(
      *group, "list", "Lists the operations, the oldest first.",
      "mmuctl op list --running\n"
      "mmuctl op list --vm alpha --kind split\n"
      "mmuctl op list --filter 'start_time > \"2026-11-21T08:00:00Z\"'");
  command->alias("ls");
  command
      ->add_option_function<std::string>(
          "--vm", [list](const std::string& name) { list->vm = VmName(name); },
          "only operations of this VM")
      ->type_name("VM");
  AddChoice(command, "--kind", &list->kind, Methods(),
            "only operations of this kind");
  CLI::Option* running =
      command->add_flag("--running", list->running, "only running operations");
  command->add_flag("--done", list->done, "only finished operations")
      ->excludes(running);
  command
      ->add_option("--filter", list->filter,
                   "terms on vm, vm_uid, method, done, start_time and "
                   "end_time, joined by AND, as in ListOperations")
      ->type_name("TERMS");
  Run(command, context, list, List);

  const auto add = [&](const char* name, const char* description,
                       const auto action) {
    auto operation = std::make_shared<std::string>();
    CLI::App* app_of_command =
        AddCommand(*group, name, description,
                   absl::StrCat("mmuctl op ", name, " 6f9619ff\n", "mmuctl op ",
                                name, " alpha"));
    AddOperation(app_of_command, context, operation.get());
    Run(app_of_command, context, operation, action);
  };
  add("get", "Shows one operation and its result.", Get);
  add("wait", "Shows progress until an operation is done.", Wait);
  add("cancel", "Asks an operation to stop; its work so far is not undone.",
      Cancel);
  add("delete", "Forgets a finished operation.", Delete);
}

}  // namespace mmud::client
