// A half-open range [start, end) of guest frames.

#ifndef MMU_CORE_BASE_GFN_RANGE_H_
#define MMU_CORE_BASE_GFN_RANGE_H_

#include <algorithm>
#include <cstdint>
#include <ostream>

#include "mmu_core/base/address.h"

namespace mmu {

// A value. Empty if end <= start.
struct GfnRange {
  Gfn start;
  Gfn end;

  static constexpr GfnRange Of(Gfn start, uint64_t pages) {
    return GfnRange{start, start + pages};
  }

  constexpr bool empty() const { return end <= start; }
  constexpr uint64_t pages() const { return empty() ? 0 : end - start; }
  constexpr uint64_t bytes() const { return pages() << kPageShift; }
  constexpr bool Contains(Gfn gfn) const { return start <= gfn && gfn < end; }
  constexpr bool Contains(GfnRange other) const {
    return other.empty() || (start <= other.start && other.end <= end);
  }
  constexpr bool Overlaps(GfnRange other) const {
    return !empty() && !other.empty() && start < other.end && other.start < end;
  }
  constexpr GfnRange Intersect(GfnRange other) const {
    return GfnRange{std::max(start, other.start), std::min(end, other.end)};
  }

  friend constexpr bool operator==(GfnRange, GfnRange) = default;

  friend std::ostream& operator<<(std::ostream& os, GfnRange r) {
    return os << "[gfn " << r.start << ", " << r.end << ")";
  }
};

}  // namespace mmu

#endif  // MMU_CORE_BASE_GFN_RANGE_H_
