#include "client/mmu_client/range_set.h"

#include <cstdint>
#include <iterator>
#include <map>
#include <vector>

#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {

RangeSet::RangeSet(const std::vector<GpaRange>& ranges) {
  std::map<int64_t, int64_t> sorted;
  for (const GpaRange& range : ranges) {
    if (range.size_bytes > 0) sorted[range.gpa_bytes] = range.end_bytes();
  }
  for (const auto& [start, end] : sorted) {
    if (!end_by_start_.empty() && end_by_start_.rbegin()->second == start) {
      end_by_start_.rbegin()->second = end;
    } else {
      end_by_start_.emplace_hint(end_by_start_.end(), start, end);
    }
  }
}

bool RangeSet::Remove(GpaRange range) {
  if (range.size_bytes <= 0) return false;
  auto it = end_by_start_.upper_bound(range.gpa_bytes);
  if (it == end_by_start_.begin()) return false;
  --it;
  const auto [start, end] = *it;
  // No sum of what came from outside, which can be too large.
  if (range.gpa_bytes >= end || range.size_bytes > end - range.gpa_bytes) {
    return false;
  }
  if (start == range.gpa_bytes) {
    end_by_start_.erase(it);
  } else {
    it->second = range.gpa_bytes;
  }
  if (range.end_bytes() < end) end_by_start_[range.end_bytes()] = end;
  return true;
}

std::vector<GpaRange> RangeSet::Ranges() const {
  std::vector<GpaRange> ranges;
  ranges.reserve(end_by_start_.size());
  for (const auto& [start, end] : end_by_start_) {
    ranges.push_back({start, end - start});
  }
  return ranges;
}

}  // namespace mmud::client
