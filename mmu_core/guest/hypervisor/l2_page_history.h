// What is known about an L2 page that several processors write, unmap and log
// at the same time.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_PAGE_HISTORY_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_PAGE_HISTORY_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "mmu_core/guest/hypervisor/l2_write_protection.h"

namespace mmu {

// Thread-safe, except for the last two members.
struct L2PageHistory {
  // Stands for the contents: even while they are kept, odd while a processor
  // takes them away. Two equal even stamps, one before and one after an access,
  // mean that it found these contents.
  std::atomic<uint64_t> stamp{0};
  static bool IsKept(uint64_t stamp) { return stamp % 2 == 0; }

  // Numbers of writes by all processors. A write that has ended before a log is
  // taken, and had not begun when the previous one had been taken, is in this
  // log.
  std::atomic<uint64_t> begun{0};
  std::atomic<uint64_t> ended{0};

  L2WriteProtection protection;

  // Of the last log that had the page, or before which it was unmapped: the
  // writes that had begun then, and the stamp. They belong to the processor
  // that takes the log.
  uint64_t logged = 0;
  uint64_t logged_stamp = 0;
};

struct L2GuestHistory {
  std::vector<L2PageHistory> pages;
  std::atomic<bool> takes_log{false};  // a processor takes L1's log
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_PAGE_HISTORY_H_
