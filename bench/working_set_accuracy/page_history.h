// The truth: which pages were accessed in which interval.

#ifndef BENCH_WORKING_SET_ACCURACY_PAGE_HISTORY_H_
#define BENCH_WORKING_SET_ACCURACY_PAGE_HISTORY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mmu::bench {

// Remembers the interval of each page's last access. Thread-compatible.
class PageHistory {
 public:
  // Pages 0 to `pages` - 1, none of which was accessed.
  explicit PageHistory(size_t pages) : last_(pages) {}

  // REQUIRES: the page is one of them.
  void Access(size_t page) { last_[page] = open_; }
  void EndInterval() { ++open_; }

  // Whether the page was accessed in one of the last `intervals` intervals that
  // have ended. The open one does not count.
  bool AccessedWithin(size_t page, uint32_t intervals) const {
    return last_[page] != 0 && last_[page] < open_ &&
           last_[page] + intervals >= open_;
  }
  // The number of these pages.
  uint64_t CountWithin(uint32_t intervals) const {
    uint64_t count = 0;
    for (size_t page = 0; page < last_.size(); ++page) {
      count += AccessedWithin(page, intervals);
    }
    return count;
  }

 private:
  uint32_t open_ = 1;           // the number of the interval that has not ended
  std::vector<uint32_t> last_;  // by page; 0 if it was never accessed
};

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_PAGE_HISTORY_H_
