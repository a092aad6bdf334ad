// Page tables as text for people.

#ifndef CLIENT_MMUCTL_TABLE_VIEWS_H_
#define CLIENT_MMUCTL_TABLE_VIEWS_H_

#include <string>
#include <vector>

#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {

// "direct l2 nx wp": the flags of the role that are set, without level and
// access.
std::string ViewRole(const v1::PageTableRole& role);

// "unsync, 3 unsync below": the present state of the table.
std::string ViewTableState(const v1::PageTable& table);

// One line per table.
std::string ViewPageTables(const std::vector<v1::PageTable>& tables);

// The tables as a tree: each root, with the tables below it indented and their
// entries' indexes in front. Roots are the tables that vCPUs use as root or
// that no entry points at; if `root_address` is not 0, only that table. If a
// table has several parents, the tables below it are shown at the first one
// only. "" if there is no such root.
std::string ViewPageTableTree(const std::vector<v1::PageTable>& tables,
                              int64_t root_address);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_TABLE_VIEWS_H_
