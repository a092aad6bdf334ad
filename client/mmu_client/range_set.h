// A set of guest memory from which pieces are taken away.

#ifndef CLIENT_MMU_CLIENT_RANGE_SET_H_
#define CLIENT_MMU_CLIENT_RANGE_SET_H_

#include <cstdint>
#include <map>
#include <vector>

#include "client/mmu_client/page_bitmap.h"

namespace mmud::client {

// Thread-compatible.
class RangeSet {
 public:
  // REQUIRES: `ranges` do not overlap.
  explicit RangeSet(const std::vector<GpaRange>& ranges);

  // Takes `range` away. False, and nothing changed, unless all of it is there.
  [[nodiscard]] bool Remove(GpaRange range);

  bool empty() const { return end_by_start_.empty(); }

  // What is left, ascending.
  std::vector<GpaRange> Ranges() const;

 private:
  std::map<int64_t, int64_t> end_by_start_;  // touching ranges are one
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_RANGE_SET_H_
