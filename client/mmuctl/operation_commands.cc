// mmuctl op list, get, wait, cancel, delete.

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "client/mmuctl/watch.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/empty.pb.h"

namespace mmud::client {
namespace {

using google::longrunning::ListOperationsRequest;
using google::longrunning::ListOperationsResponse;
using google::longrunning::Operation;

absl::Status List(Context& context, const ListOperationsRequest& arguments) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  ListOperationsRequest request = arguments;
  ListOperationsResponse all;
  do {
    const auto page = (*client)->operations().List(request);
    if (!page.ok()) return page.status();
    all.mutable_operations()->MergeFrom(page->operations());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  Table table({{"NAME"},
               {"KIND"},
               {"VM"},
               {"DONE", Align::kRight},
               {"STATE"},
               {"PROGRESS"}});
  for (const Operation& operation : all.operations()) {
    const OperationView view = ViewOperation(operation);
    table.AddRow({operation.name(), view.kind, view.vm,
                  view.share ? FormatShare(*view.share, 1) : "", view.state,
                  view.words});
  }
  return context.Print(all, table.ToString());
}

absl::Status Get(Context& context, const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  const auto operation = (*client)->operations().Get(name);
  if (!operation.ok()) return operation.status();
  return context.Print(*operation, ViewOperationDetails(*operation));
}

absl::Status Wait(Context& context, const std::string& name) {
  return WatchOperation(context, name);
}

absl::Status Cancel(Context& context, const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  if (absl::Status status = (*client)->operations().Cancel(name);
      !status.ok()) {
    return status;
  }
  return context.Print(
      google::protobuf::Empty(),
      absl::StrCat("asked ", name, " to stop at its next safe point\n"));
}

absl::Status Delete(Context& context, const std::string& name) {
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  if (absl::Status status = (*client)->operations().Delete(name);
      !status.ok()) {
    return status;
  }
  return context.Print(google::protobuf::Empty(),
                       absl::StrCat("deleted ", name, "\n"));
}

}  // namespace

void AddOperationCommands(CLI::App& app, Context& context) {
  CLI::App* group =
      AddGroup(app, "op", "Shows, waits for and ends long-running operations.",
               "mmuctl op list\n"
               "mmuctl op wait 7\n"
               "mmuctl op cancel 7");
  auto list = std::make_shared<ListOperationsRequest>();
  CLI::App* command =
      AddCommand(*group, "list", "Lists the operations.", "mmuctl op list");
  Run(command, context, list, List);

  const auto add = [&](const char* name, const char* description,
                       absl::Status (*action)(Context&, const std::string&)) {
    auto operation = std::make_shared<std::string>();
    CLI::App* app_of_command = AddCommand(
        *group, name, description, absl::StrCat("mmuctl op ", name, " 7"));
    AddOperation(app_of_command, operation.get());
    Run(app_of_command, context, operation, action);
  };
  add("get", "Shows one operation and its result.", Get);
  add("wait", "Shows progress until an operation is done.", Wait);
  add("cancel", "Asks an operation to stop; work already done stays done.",
      Cancel);
  add("delete", "Forgets a finished operation.", Delete);
}

}  // namespace mmud::client
