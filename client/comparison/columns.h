// The columns in which people see the results: titles, what they mean, cells.

#ifndef CLIENT_COMPARISON_COLUMNS_H_
#define CLIENT_COMPARISON_COLUMNS_H_

#include <string>
#include <vector>

#include "client/comparison/result.h"
#include "client/guest_mmu.h"
#include "client/text/table.h"

namespace mmud::client {

// One column. A value.
struct ResultColumn {
  std::string title;
  std::string
      meaning;  // a sentence without its subject and without a full stop
  Align align = Align::kRight;
  // The text of a cell; "-" if the number does not exist or is not known.
  std::string (*cell)(const CombinationResult& result) = nullptr;
};

// The columns that name a row: vCPUs, share of writes, policy.
std::vector<ResultColumn> NameColumns();
// The times that a row took.
std::vector<ResultColumn> TimeColumns();
// The work that was done in these times.
std::vector<ResultColumn> WorkColumns(const GuestMmu& mmu);

// "columns:" and an entry per column, "  TITLE: meaning.", in lines for --help.
std::string ColumnHelp();

// "tdp, 1 GiB of memory on 2M pages, seed 1, the median of 5 runs by DIRTY".
std::string DescribeGuests(const Plan& plan);

// How the rows are to be read.
std::string HowToRead();

// What is wrong with the results, in lines: passes that ended at the time
// limit, and rows in which dirty pages are missing. Empty if nothing is.
std::string Warnings(const Comparison& comparison);

// Whether a page that a guest wrote is known to be missing in its log.
bool LostPages(const Comparison& comparison);

}  // namespace mmud::client

#endif  // CLIENT_COMPARISON_COLUMNS_H_
