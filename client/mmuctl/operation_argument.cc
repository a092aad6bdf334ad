#include "client/mmuctl/operation_argument.h"

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/views.h"
#include "google/longrunning/operations.pb.h"
#include "server/base/uuid.h"

namespace mmud::client {
namespace {

using google::longrunning::Operation;

constexpr absl::string_view kPrefix = "operations/";
constexpr size_t kShownDigits = 8;

absl::StatusOr<std::vector<Operation>> ListAll(Client& client) {
  std::vector<Operation> all;
  google::longrunning::ListOperationsRequest request;
  do {
    const auto page = client.operations().List(request);
    if (!page.ok()) return page.status();
    all.insert(all.end(), page->operations().begin(), page->operations().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return all;
}

std::string NewestOf(const std::vector<Operation>& operations,
                     const std::string& vm) {
  const Operation* newest = nullptr;
  for (const Operation& operation : operations) {
    if (ViewOperation(operation).vm != vm) continue;
    if (newest == nullptr || newest->done() || !operation.done()) {
      newest = &operation;
    }
  }
  return newest == nullptr ? "" : newest->name();
}

}  // namespace

CLI::Option* AddOperation(CLI::App* app, Context& context,
                          std::string* operation) {
  return app
      ->add_option_function<std::string>(
          "OPERATION",
          [&context, operation](const std::string& text) {
            context.before_action.push_back([&context, operation,
                                             text]() -> absl::Status {
              const absl::StatusOr<Client*> client = context.client();
              if (!client.ok()) return client.status();
              absl::StatusOr<std::string> name = FindOperation(**client, text);
              if (name.ok()) *operation = *std::move(name);
              return name.status();
            });
          },
          "the operation: its id or the beginning of its id, or a VM for that "
          "VM's newest operation")
      ->type_name("NAME")
      ->required();
}

absl::StatusOr<std::string> FindOperation(Client& client,
                                          absl::string_view text) {
  absl::string_view id = text;
  const bool is_name = absl::ConsumePrefix(&id, kPrefix);
  if (IsUuid(id)) return absl::StrCat(kPrefix, CanonicalUuid(id));
  const absl::StatusOr<std::vector<Operation>> all = ListAll(client);
  if (!all.ok()) return all.status();
  std::vector<std::string> matches;
  const std::string beginning =
      absl::StrCat(kPrefix, absl::AsciiStrToLower(id));
  for (const Operation& operation : *all) {
    if (!id.empty() && absl::StartsWith(operation.name(), beginning)) {
      matches.push_back(operation.name());
    }
  }
  if (matches.size() == 1) return matches.front();
  if (matches.size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is the beginning of several operations: ",
                     absl::StrJoin(matches, ", "), "; give more of one"));
  }
  const std::string vm = VmName(id);
  if (!is_name) {
    if (std::string newest = NewestOf(*all, vm); !newest.empty()) return newest;
  }
  return absl::NotFoundError(
      absl::StrCat("no operation begins with '", id, "'",
                   is_name ? "" : absl::StrCat(", and there is none of ", vm),
                   "; list the operations: mmuctl op list"));
}

std::string ShortOperationId(absl::string_view name) {
  absl::ConsumePrefix(&name, kPrefix);
  return std::string(name.substr(0, kShownDigits));
}

}  // namespace mmud::client
