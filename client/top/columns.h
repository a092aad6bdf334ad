// The columns of the table of VMs, and the orders of its rows.

#ifndef CLIENT_TOP_COLUMNS_H_
#define CLIENT_TOP_COLUMNS_H_

#include <map>
#include <string>
#include <vector>

#include "client/text/table.h"
#include "client/top/marks.h"
#include "client/top/model.h"

namespace mmud::client {

enum class SortKey { kName, kDirty, kLeft, kInFlight, kFaults, kStall, kLock };

enum class SortOrder { kUsual, kReversed };

// The words of --sort.
const std::map<std::string, SortKey>& SortKeys();
// The word of a key.
std::string NameOf(SortKey key);

// The VMs in the order of `key`: names ascending, numbers descending, equal
// ones by name. The pointers are into `model`.
std::vector<const VmTrend*> Sorted(const TopModel& model, SortKey key,
                                   SortOrder order);

// A column as it fits onto a screen. A value.
struct PlacedColumn {
  std::string title;
  Align align = Align::kLeft;
  int width = 0;
  // The text of a cell, which may be wider than the column. `width` is for
  // cells that use all of it.
  std::string (*cell)(const VmTrend& vm, int width, Charset charset) = nullptr;
  SortKey key = SortKey::kName;
  bool sorts = false;  // whether `key` sorts by this column
};

// The columns that fit into `width` with a blank between two of them, from left
// to right: all of them on a wide screen, at least the name on a narrow one.
// The name and the trend use what is left.
std::vector<PlacedColumn> ColumnsFor(int width);

}  // namespace mmud::client

#endif  // CLIENT_TOP_COLUMNS_H_
