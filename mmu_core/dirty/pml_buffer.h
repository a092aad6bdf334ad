// The processor's own log of dirty pages, page-modification logging (PML): on
// each write that sets a Dirty bit, the processor notes the page's address here
// before the write happens, and leaves the guest when there is no room (SDM
// vol. 3, 29.3.6).
//
//   entry   0 ........ index   index + 1 ......... 511
//           free               newest ...... oldest
//
// The index starts at 511 and goes down; below 0 it wraps, and the log is full.
// Who drains it, and when: vm/vcpu/vcpu.h.

#ifndef MMU_CORE_DIRTY_PML_BUFFER_H_
#define MMU_CORE_DIRTY_PML_BUFFER_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"

namespace mmu {

// Externally synchronised by the vCPU: only its thread may call, or anybody
// while the vCPU is parked.
class PmlBuffer {
 public:
  static constexpr int kEntries = 512;

  bool empty() const { return index_ == kEntries - 1; }
  // The next write that sets a Dirty bit must leave the guest instead.
  bool full() const { return index_ >= kEntries; }
  int count() const { return full() ? kEntries : kEntries - 1 - index_; }

  // The page of `gpa` became dirty. REQUIRES: not full.
  void Log(Gpa gpa) {
    MMU_DCHECK(!full());
    entries_[index_--] = ToGpa(ToGfn(gpa));
  }

  // Calls fn(Gpa) for each entry, the oldest first (DL-31).
  template <typename Fn>
  void ForEach(Fn fn) const {
    const int newest = kEntries - count();
    for (int i = kEntries - 1; i >= newest; --i) fn(entries_[i]);
  }
  void Reset() { index_ = kEntries - 1; }

 private:
  std::array<Gpa, kEntries> entries_;
  uint16_t index_ = kEntries - 1;  // of the next entry; above 511: full
};

}  // namespace mmu

#endif  // MMU_CORE_DIRTY_PML_BUFFER_H_
