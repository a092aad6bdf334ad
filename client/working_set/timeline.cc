#include "client/working_set/timeline.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/working_set/newest_ended.h"
#include "client/working_set/picture.h"
#include "mmu_core/base/clock.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

void Timeline::Observe(const v1::WorkingSet& working_set,
                       mmu::MonotonicTime now) {
  const v1::Generation* newest = NewestEnded(working_set);
  // Sequences ascend until the working set is forgotten.
  if (working_set.vm_uid() != vm_uid_ || newest == nullptr ||
      (!points_.empty() && points_.rbegin()->first > newest->sequence())) {
    points_.clear();
  }
  vm_uid_ = working_set.vm_uid();
  if (newest == nullptr) return;
  for (const v1::Generation& generation : working_set.generations()) {
    if (!generation.has_since_end()) continue;
    const auto [at, is_new] = points_.try_emplace(generation.sequence());
    if (!is_new) continue;
    at->second.end = now - FromProto(generation.since_end());
    at->second.young_bytes = generation.young_page_count() * kPageBytes;
    at->second.windows.resize(static_cast<size_t>(working_set.windows_size()));
  }
  Point& last = points_[newest->sequence()];
  if (!last.windows_known) {
    last.windows.clear();
    for (const v1::WorkingSetSize& window : working_set.windows()) {
      last.windows.push_back(window.size_bytes());
    }
    last.windows_known = true;
  }
  while (points_.size() > kMaxPoints) points_.erase(points_.begin());
}

std::vector<TimelinePoint> Timeline::Points(mmu::MonotonicTime now) const {
  std::vector<TimelinePoint> points;
  for (const auto& [sequence, point] : points_) {
    points.push_back({.ago = now - point.end,
                      .young_bytes = point.young_bytes,
                      .working_set_bytes = point.windows});
  }
  return points;
}

}  // namespace mmud::client
