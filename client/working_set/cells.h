// The cells of the heat map, from the extents of an answer.

#ifndef CLIENT_WORKING_SET_CELLS_H_
#define CLIENT_WORKING_SET_CELLS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/working_set/picture.h"

namespace mmud::client {

// Memory whose pages are mapped and have one age. A value.
struct AgedExtent {
  GpaRange range;
  // How long ago the pages were last found young; without a value if never.
  std::optional<absl::Duration> age;
};

// A memslot's number and memory. A value.
struct HeatSlotRange {
  int slot = 0;
  GpaRange range;
};

// The heat of all slots, ascending by address, in cells of one size: the
// smallest power of two, from 4 KiB, with which there are at most
// `wanted_cells` cells in all. There are more only if there are more slots,
// since each has at least one cell. Cells begin at the start of their slot. The
// age of a cell is that of its youngest page; a cell that no extent touches is
// absent. Extents may be in any order, overlap, and lie across slots or outside
// of them. Slots without memory are left out. REQUIRES: slots do not overlap.
std::vector<HeatSlot> MakeHeat(const std::vector<AgedExtent>& extents,
                               const std::vector<HeatSlotRange>& slots,
                               int64_t wanted_cells);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_CELLS_H_
