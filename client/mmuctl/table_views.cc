#include "client/mmuctl/table_views.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"

namespace mmud::client {
namespace {

// Maximum number of parents in a line.
constexpr int kNamedParents = 3;

std::string KindOf(const v1::PageTable& table) {
  return ShortName(v1::PageTableKind_Name(table.kind()), "PAGE_TABLE_KIND_");
}

std::string ViewEntry(const v1::PageTableEntry& entry) {
  return absl::StrCat(FormatGpa(entry.address_bytes()), "[", entry.index(),
                      "]");
}

std::string ViewParents(const v1::PageTable& table) {
  if (table.parent_count() == 0) return "none";
  std::vector<std::string> named;
  for (int i = 0; i < std::min(table.parents_size(), kNamedParents); ++i) {
    named.push_back(ViewEntry(table.parents(i)));
  }
  const int64_t more =
      table.parent_count() - static_cast<int64_t>(named.size());
  if (more > 0) named.push_back(absl::StrCat("+", FormatCount(more)));
  return absl::StrJoin(named, " ");
}

// Joins the words that are not empty.
std::string Join(std::vector<std::string> words, absl::string_view separator) {
  words.erase(std::remove(words.begin(), words.end(), ""), words.end());
  return absl::StrJoin(words, separator);
}

class TreeView {
 public:
  explicit TreeView(const std::vector<v1::PageTable>& tables) {
    for (const v1::PageTable& table : tables) {
      tables_[table.address_bytes()] = &table;
    }
    for (const auto& [address, table] : tables_) {
      for (const v1::PageTableEntry& parent : table->parents()) {
        children_[parent.address_bytes()][parent.index()] = table;
      }
    }
  }

  std::string Show(int64_t root_address) {
    for (const auto& [address, table] : tables_) {
      const bool is_root =
          table->root_count() > 0 || table->parent_count() == 0;
      if (root_address == 0 ? is_root : address == root_address) {
        Add(*table, /*place=*/"", /*depth=*/0);
      }
    }
    return std::move(text_);
  }

 private:
  // The label of a table that has no parent in the tree.
  static const char* LabelOf(const v1::PageTable& table) {
    if (table.parent_count() > 0) return "";
    // A shadow page without parent and without root count is unused but still
    // cached.
    return table.root_count() > 0 || table.kind() == v1::PAGE_TABLE_KIND_TDP
               ? "root "
               : "unused ";
  }

  void Add(const v1::PageTable& table, const std::string& place, int depth) {
    const bool first = shown_.insert(table.address_bytes()).second;
    const v1::PageTableRole& role = table.role();
    absl::StrAppend(&text_, std::string(2 * depth, ' '), place,
                    depth == 0 ? LabelOf(table) : "");
    absl::StrAppend(
        &text_,
        Join({absl::StrCat("level ", role.level()),
              absl::StrCat(KindOf(table), " ", FormatGpa(table.gpa_bytes())),
              role.access(), ViewRole(role), ViewTableState(table),
              first ? absl::StrCat(table.present_entry_count(), " entries, ",
                                   table.leaf_entry_count(), " leafs")
                    : "see above"},
             ", "),
        "\n");
    if (!first) return;
    const auto below = children_.find(table.address_bytes());
    if (below == children_.end()) return;
    for (const auto& [index, child] : below->second) {
      Add(*child, absl::StrCat("[", index, "] "), depth + 1);
    }
  }

  std::map<int64_t, const v1::PageTable*> tables_;  // by address
  std::map<int64_t, std::map<int32_t, const v1::PageTable*>> children_;
  std::set<int64_t> shown_;
  std::string text_;
};

}  // namespace

std::string ViewRole(const v1::PageTableRole& role) {
  return Join(
      {role.direct() ? "direct" : "", role.passthrough() ? "passthrough" : "",
       role.guest_mode() ? "l2" : "",
       role.has_4_byte_gpte()
           ? absl::StrCat("4-byte quadrant-", role.quadrant())
           : "",
       role.efer_nx() ? "nx" : "", role.cr0_wp() ? "wp" : "",
       role.smap_andnot_wp() ? "smap-andnot-wp" : "",
       role.cr4_smep() ? "smep" : "", role.ad_disabled() ? "ad-disabled" : ""},
      " ");
}

std::string ViewTableState(const v1::PageTable& table) {
  const auto counted = [](int64_t count, absl::string_view words) {
    return count == 0 ? "" : absl::StrCat(FormatCount(count), " ", words);
  };
  return Join(
      {table.role().invalid() ? "invalid" : "", table.unsync() ? "unsync" : "",
       counted(table.unsync_child_count(), "unsync below"),
       counted(table.write_flood_count(), "writes")},
      ", ");
}

std::string ViewPageTables(const std::vector<v1::PageTable>& tables) {
  Table text({{"TABLE", Align::kRight},
              {"MMU"},
              {"LEVEL", Align::kRight},
              {"GPA", Align::kRight},
              {"ACCESS"},
              {"ROLE"},
              {"STATE"},
              {"ROOTS", Align::kRight},
              {"ENTRIES", Align::kRight},
              {"LEAFS", Align::kRight},
              {"PARENTS"}});
  for (const v1::PageTable& table : tables) {
    const std::string state = ViewTableState(table);
    text.AddRow({FormatGpa(table.address_bytes()), KindOf(table),
                 absl::StrCat(table.role().level()),
                 FormatGpa(table.gpa_bytes()), table.role().access(),
                 ViewRole(table.role()), state.empty() ? "ok" : state,
                 FormatCount(table.root_count()),
                 FormatCount(table.present_entry_count()),
                 FormatCount(table.leaf_entry_count()), ViewParents(table)});
  }
  return text.ToString();
}

std::string ViewPageTableTree(const std::vector<v1::PageTable>& tables,
                              int64_t root_address) {
  return TreeView(tables).Show(root_address);
}

}  // namespace mmud::client
