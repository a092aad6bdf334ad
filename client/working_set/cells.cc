#include "client/working_set/cells.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "client/mmu_client/page_bitmap.h"
#include "client/working_set/picture.h"

namespace mmud::client {
namespace {

// No slot is larger, so that doubling the size of cells ends.
constexpr int64_t kMaxCellBytes = int64_t{1} << 62;

int64_t CellsOf(int64_t size_bytes, int64_t cell_bytes) {
  return size_bytes / cell_bytes + (size_bytes % cell_bytes != 0 ? 1 : 0);
}

int64_t CellBytes(const std::vector<HeatSlot>& slots, int64_t wanted_cells) {
  int64_t cell_bytes = kPageBytes;
  while (cell_bytes < kMaxCellBytes) {
    int64_t cells = 0;
    int64_t most = 0;
    for (const HeatSlot& slot : slots) {
      const int64_t of_slot = CellsOf(slot.size_bytes, cell_bytes);
      cells += of_slot;
      most = std::max(most, of_slot);
    }
    if (cells <= wanted_cells || most <= 1) break;
    cell_bytes *= 2;
  }
  return cell_bytes;
}

void Warm(const AgedExtent& extent, HeatCell* cell) {
  if (!extent.age.has_value()) {
    if (cell->kind == HeatCell::Kind::kAbsent) {
      cell->kind = HeatCell::Kind::kNeverYoung;
    }
  } else if (cell->kind != HeatCell::Kind::kAged || *extent.age < cell->age) {
    *cell = {.kind = HeatCell::Kind::kAged, .age = *extent.age};
  }
}

// Adds the part of the extent that lies in the slot.
void Add(const AgedExtent& extent, HeatSlot* slot) {
  const int64_t first = std::max(extent.range.gpa_bytes, slot->gpa_bytes);
  const int64_t end =
      std::min(extent.range.end_bytes(), slot->gpa_bytes + slot->size_bytes);
  if (first >= end) return;
  const int64_t last_cell = (end - 1 - slot->gpa_bytes) / slot->cell_bytes;
  for (int64_t cell = (first - slot->gpa_bytes) / slot->cell_bytes;
       cell <= last_cell; ++cell) {
    Warm(extent, &slot->cells[cell]);
  }
}

}  // namespace

std::vector<HeatSlot> MakeHeat(const std::vector<AgedExtent>& extents,
                               const std::vector<HeatSlotRange>& slots,
                               int64_t wanted_cells) {
  std::vector<HeatSlot> heat;
  for (const HeatSlotRange& slot : slots) {
    if (slot.range.size_bytes <= 0) continue;
    heat.push_back({.slot = slot.slot,
                    .gpa_bytes = slot.range.gpa_bytes,
                    .size_bytes = slot.range.size_bytes,
                    .cell_bytes = 0,
                    .cells = {}});
  }
  std::sort(heat.begin(), heat.end(), [](const HeatSlot& a, const HeatSlot& b) {
    return a.gpa_bytes < b.gpa_bytes;
  });
  const int64_t cell_bytes = CellBytes(heat, wanted_cells);
  for (HeatSlot& slot : heat) {
    slot.cell_bytes = cell_bytes;
    slot.cells.resize(CellsOf(slot.size_bytes, cell_bytes));
  }
  for (const AgedExtent& extent : extents) {
    // The first slot that ends behind the start of the extent.
    auto slot = std::partition_point(
        heat.begin(), heat.end(), [&](const HeatSlot& before) {
          return before.gpa_bytes + before.size_bytes <= extent.range.gpa_bytes;
        });
    for (; slot != heat.end() && slot->gpa_bytes < extent.range.end_bytes();
         ++slot) {
      Add(extent, &*slot);
    }
  }
  return heat;
}

}  // namespace mmud::client
