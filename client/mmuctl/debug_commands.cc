// mmuctl debug: audit, and tables from debug_tables.cc.

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
#include "client/text/units.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {
namespace {

absl::Status Audit(Context& context, Client& client,
                   const v1::RunAuditRequest& request) {
  const auto response = client.debug().RunAudit(request);
  if (!response.ok()) return response.status();
  std::string text;
  for (const std::string& violation : response->violations()) {
    absl::StrAppend(&text, "broken: ", violation, "\n");
  }
  absl::StrAppend(&text,
                  response->violation_count() == 0
                      ? "every invariant holds"
                      : absl::StrCat(FormatCount(response->violation_count()),
                                     " broken invariants"),
                  ": checked ", FormatCount(response->checked_table_count()),
                  " tables, ", FormatCount(response->checked_leaf_count()),
                  " leaves, ", FormatCount(response->checked_tlb_entry_count()),
                  " TLB entries; cost ", ViewCost(response->cost()), "\n");
  if (response->violation_count() > 0) context.exit_code = kExitFailed;
  return context.Print(*response, text);
}

}  // namespace

void AddDebugCommands(CLI::App& app, Context& context) {
  CLI::App* group = AddGroup(
      app, "debug", "Inspects MMUs; the daemon needs --enable-debug-service.",
      "mmuctl debug audit alpha\n"
      "mmuctl debug tables alpha --tree");
  auto arguments = std::make_shared<v1::RunAuditRequest>();
  CLI::App* command = AddCommand(
      *group, "audit",
      "Walks every page table and TLB of a VM and verifies the MMU's "
      "invariants. Exit code 1 if one is broken.",
      "mmuctl debug audit alpha");
  AddVm(command, arguments->mutable_vm());
  Run(command, context, arguments, Audit);
  AddDebugTables(*group, context);
}

}  // namespace mmud::client
