// Counts the dirty logs that ended because their owners made no call.

#ifndef SERVER_CONTROL_ABANDONED_LOGS_H_
#define SERVER_CONTROL_ABANDONED_LOGS_H_

#include <atomic>
#include <cstdint>

namespace mmud {

// Counters for the metrics. Thread-safe. Relaxed: the numbers are independent.
class AbandonedLogs {
 public:
  // Counts one stopped log and the pages that it discarded.
  void Count(uint64_t discarded_pages) {
    logs_.fetch_add(1, std::memory_order_relaxed);
    pages_.fetch_add(discarded_pages, std::memory_order_relaxed);
  }
  uint64_t logs() const { return logs_.load(std::memory_order_relaxed); }
  uint64_t discarded_pages() const {
    return pages_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<uint64_t> logs_ = 0;
  std::atomic<uint64_t> pages_ = 0;
};

}  // namespace mmud

#endif  // SERVER_CONTROL_ABANDONED_LOGS_H_
