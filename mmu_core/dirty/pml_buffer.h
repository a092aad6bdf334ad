// The processor's own log of dirty pages, page-modification logging (PML). On
// each write that sets a Dirty bit, the processor records the page's address
// here before the write happens; when the log is full, it leaves the guest
// instead (SDM vol. 3, 29.3.6).
//
//   entry   0 ........ index   index + 1 ......... 511
//           free               newest ...... oldest
//
// The index starts at 511 and counts down; below 0 it wraps, and the log is
// full. vm/vcpu/vcpu.h says when the log is drained, and by which thread.

#ifndef MMU_CORE_DIRTY_PML_BUFFER_H_
#define MMU_CORE_DIRTY_PML_BUFFER_H_

#include <array>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"

namespace mmu {

// Externally synchronised by the vCPU: only its thread may call, or any one
// thread while the vCPU is parked.
class PmlBuffer {
 public:
  static constexpr int kEntries = 512;

  bool empty() const { return index_ == kEntries - 1; }
  // Whether the next write that sets a Dirty bit must leave the guest instead.
  bool full() const { return index_ >= kEntries; }
  int count() const { return full() ? kEntries : kEntries - 1 - index_; }

  // Records that the page of `gpa` became dirty. REQUIRES: not full.
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
