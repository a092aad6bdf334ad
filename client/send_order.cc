#include "client/send_order.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "client/mmu_client/dirty_log_stream.h"
#include "client/mmu_client/harvester.h"
#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {
namespace {

// The generation of each part of guest memory; 0 where none is set.
class HeatByAddress {
 public:
  explicit HeatByAddress(const std::vector<MemoryHeat>& heat) {
    for (const MemoryHeat& memory : heat) {
      if (memory.range.size_bytes > 0) Set(memory.range, memory.generation);
    }
  }

  // Calls `visit(part, generation)` for the parts of `range`, ascending.
  template <typename Visit>
  void ForEachPart(GpaRange range, Visit visit) const {
    int64_t at = range.gpa_bytes;
    auto next = parts_.upper_bound(at);
    if (next != parts_.begin()) --next;
    for (; next != parts_.end() && next->first < range.end_bytes(); ++next) {
      const int64_t begin = std::max(next->first, at);
      const int64_t end = std::min(next->second.end, range.end_bytes());
      if (begin >= end) continue;
      if (begin > at) visit(GpaRange{at, begin - at}, 0);
      visit(GpaRange{begin, end - begin}, next->second.generation);
      at = end;
    }
    if (at < range.end_bytes()) {
      visit(GpaRange{at, range.end_bytes() - at}, 0);
    }
  }

 private:
  struct Part {
    int64_t end = 0;
    int64_t generation = 0;
  };

  // Makes `at` a border between parts.
  void Cut(int64_t at) {
    auto after = parts_.lower_bound(at);
    if (after == parts_.begin()) return;
    auto& [begin, part] = *std::prev(after);
    if (part.end <= at) return;
    parts_.emplace_hint(after, at, part);
    part.end = at;
  }

  void Set(GpaRange range, int64_t generation) {
    Cut(range.gpa_bytes);
    Cut(range.end_bytes());
    parts_.erase(parts_.lower_bound(range.gpa_bytes),
                 parts_.lower_bound(range.end_bytes()));
    parts_[range.gpa_bytes] = {range.end_bytes(), generation};
  }

  std::map<int64_t, Part> parts_;  // by their first byte
};

// Pages of one slot with the same heat.
struct Run {
  int32_t slot = 0;
  GpaRange range;
  int64_t generation = 0;
};

std::vector<Run> RunsOf(const SlotBitmaps& pages,
                        const std::vector<MemoryHeat>& heat) {
  const HeatByAddress by_address(heat);
  std::vector<Run> runs;
  for (const auto& [slot, bitmap] : pages) {
    for (const GpaRange& range : bitmap.Ranges()) {
      by_address.ForEachPart(range,
                             [&, id = slot](GpaRange part, int64_t generation) {
                               runs.push_back({id, part, generation});
                             });
    }
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
    return a.generation != b.generation ? a.generation < b.generation
                                        : a.range.gpa_bytes < b.range.gpa_bytes;
  });
  return runs;
}

}  // namespace

std::string ToString(SendOrder order) {
  switch (order) {
    case SendOrder::kAscending:
      return "ascending";
    case SendOrder::kAscendingPieces:
      return "ascending-pieces";
    case SendOrder::kColdestFirst:
      return "coldest-first";
  }
  return "";
}

std::vector<HarvestPiece> ColdestFirst(const SlotBitmaps& pages,
                                       const std::vector<MemoryHeat>& heat,
                                       const PieceSizes& sizes) {
  int64_t left = 0;
  for (const auto& [slot, bitmap] : pages) left += bitmap.page_count();
  std::vector<HarvestPiece> pieces;
  int64_t room = 0;  // pages that still fit into the last piece
  for (const Run& run : RunsOf(pages, heat)) {
    GpaRange rest = run.range;
    while (rest.size_bytes > 0) {
      if (room == 0) {
        pieces.emplace_back();
        room = std::max(sizes.min_pages, left / sizes.share);
      }
      const int64_t count = std::min(room, rest.size_bytes / kPageBytes);
      pieces.back()[run.slot].push_back({rest.gpa_bytes, count * kPageBytes});
      rest = {rest.gpa_bytes + count * kPageBytes,
              rest.size_bytes - count * kPageBytes};
      room -= count;
      left -= count;
    }
  }
  return pieces;
}

}  // namespace mmud::client
