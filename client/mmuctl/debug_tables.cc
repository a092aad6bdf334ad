// mmuctl debug tables.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/client.h"
#include "client/mmuctl/arguments.h"
#include "client/mmuctl/commands.h"
#include "client/mmuctl/context.h"
#include "client/mmuctl/table_views.h"
#include "client/text/units.h"
#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {
namespace {

constexpr int64_t kPageBytes = 4096;
// The maximum number of tables in a tree, since a tree needs all its tables in
// memory.
constexpr int64_t kMaxInTree = 1'000'000;

struct TablesArguments {
  v1::ListPageTablesRequest request;
  std::vector<GpaRange> ranges;
  v1::PageTableKind kind = v1::PAGE_TABLE_KIND_UNSPECIFIED;
  int64_t gfn = -1;
  int64_t max_tables = 1000;
  bool tree = false;
  int64_t root = 0;
};

// Lists the requested tables, but no more than `limit`. The page token of the
// result continues the list.
absl::StatusOr<v1::ListPageTablesResponse> ListAll(
    Client& client, v1::ListPageTablesRequest request, int64_t limit) {
  v1::ListPageTablesResponse all;
  do {
    request.set_page_size(static_cast<int32_t>(
        std::min<int64_t>(1000, limit - all.tables_size())));
    auto page = client.debug().ListPageTables(request);
    if (!page.ok()) return page.status();
    all.mutable_tables()->MergeFrom(page->tables());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && all.tables_size() < limit);
  all.set_next_page_token(request.page_token());
  return all;
}

absl::Status Tables(Context& context, const TablesArguments& arguments) {
  v1::ListPageTablesRequest request = arguments.request;
  request.set_kind(arguments.kind);
  if (arguments.gfn >= 0) {
    request.mutable_extent()->set_gpa_bytes(arguments.gfn * kPageBytes);
    request.mutable_extent()->set_size_bytes(kPageBytes);
  }
  if (!arguments.ranges.empty()) {
    *request.mutable_extent() = ToExtent(arguments.ranges[0]);
  }
  const bool tree = arguments.tree || arguments.root != 0;
  const absl::StatusOr<Client*> client = context.client();
  if (!client.ok()) return client.status();
  const auto all =
      ListAll(**client, request, tree ? kMaxInTree : arguments.max_tables);
  if (!all.ok()) return all.status();
  const std::vector<v1::PageTable> tables(all->tables().begin(),
                                          all->tables().end());
  std::string text =
      tree ? ViewPageTableTree(tables, arguments.root) : ViewPageTables(tables);
  if (tree && text.empty() && arguments.root != 0) {
    return absl::NotFoundError(absl::StrCat(
        "there is no table at ", FormatGpa(arguments.root),
        "; see the column TABLE of mmuctl debug tables without --root"));
  }
  if (!all->next_page_token().empty()) {
    absl::StrAppend(&text,
                    "there are more: raise --max-tables, or choose with "
                    "--gfn, --range, --level, --mmu or --unsync\n");
  }
  return context.Print(*all, text);
}

}  // namespace

void AddDebugTables(CLI::App& group, Context& context) {
  auto arguments = std::make_shared<TablesArguments>();
  CLI::App* command = AddCommand(
      group, "tables",
      "Lists the page tables of a VM: those of the TDP MMU, shadow pages with "
      "their roles and parents, or stage-2 tables. The guest keeps running.",
      "mmuctl debug tables alpha --level 4\n"
      "mmuctl debug tables alpha --mmu shadow --unsync\n"
      "mmuctl debug tables alpha --gfn 0x1a2b\n"
      "mmuctl debug tables alpha --tree\n"
      "mmuctl --json debug tables alpha --max-tables 100000");
  AddVm(command, arguments->request.mutable_vm());
  command
      ->add_option("--gfn", arguments->gfn,
                   "only shadow pages that mirror a guest's page table in this "
                   "page, and direct tables that cover it")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50));
  AddRanges(command, "--range", &arguments->ranges,
            "the same for a range of guest memory")
      ->expected(1)
      ->excludes("--gfn");
  command
      ->add_option_function<int32_t>(
          "--level",
          [arguments](int32_t level) { arguments->request.set_level(level); },
          "only tables of this level, 1 to 5")
      ->check(CLI::Range(1, 5));
  command->add_flag_function(
      "--unsync",
      [arguments](int64_t) { arguments->request.set_unsync_only(true); },
      "only unsync shadow pages, which may differ from the guest's page "
      "tables");
  AddChoice(command, "--mmu", &arguments->kind,
            {{"tdp", v1::PAGE_TABLE_KIND_TDP},
             {"shadow", v1::PAGE_TABLE_KIND_SHADOW},
             {"stage2", v1::PAGE_TABLE_KIND_STAGE2}},
            "only tables of this MMU");
  command
      ->add_option("--max-tables", arguments->max_tables,
                   "maximum number of tables to list (default: 1000)")
      ->check(CLI::Range(int64_t{1}, kMaxInTree));
  command
      ->add_flag("--tree", arguments->tree,
                 "show the tables as a tree, from the roots down")
      ->excludes("--level")
      ->excludes("--max-tables")
      ->excludes("--gfn")
      ->excludes("--range");
  AddBytes(command, "--root", &arguments->root,
           "show the tree below this table, by its address");
  Run(command, context, arguments, Tables);
}

}  // namespace mmud::client
