// A set of guest memory from which ranges are removed.

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

  // Removes `range`. Returns false and changes nothing unless all of it is in
  // the set.
  [[nodiscard]] bool Remove(GpaRange range);

  bool empty() const { return end_by_start_.empty(); }

  // The remaining ranges, ascending.
  std::vector<GpaRange> Ranges() const;

 private:
  std::map<int64_t, int64_t> end_by_start_;  // touching ranges are one
};

}  // namespace mmud::client

#endif  // CLIENT_MMU_CLIENT_RANGE_SET_H_
