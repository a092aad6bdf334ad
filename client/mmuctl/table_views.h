// Page tables as text for people.

#ifndef CLIENT_MMUCTL_TABLE_VIEWS_H_
#define CLIENT_MMUCTL_TABLE_VIEWS_H_

#include <string>
#include <vector>

#include "mmud/v1/debug_service.pb.h"

namespace mmud::client {

// "direct l2 nx wp": what is so of the role, without its level and access.
std::string ViewRole(const v1::PageTableRole& role);

// "unsync, 3 unsync below": what is the matter with the table at the moment.
std::string ViewTableState(const v1::PageTable& table);

// One line per table.
std::string ViewPageTables(const std::vector<v1::PageTable>& tables);

// What hangs where: each root with what is below it, indented, the entry's
// index in front. Roots are the tables that vCPUs run on or that nothing points
// at; with `root_address` other than 0 that table alone. A table that hangs at
// several places is shown with what is below it at the first. "" if there is
// no such root.
std::string ViewPageTableTree(const std::vector<v1::PageTable>& tables,
                              int64_t root_address);

}  // namespace mmud::client

#endif  // CLIENT_MMUCTL_TABLE_VIEWS_H_
