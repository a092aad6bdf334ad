// What CPUs have to forget of one address space.

#ifndef MMU_CORE_GUEST_KERNEL_TLB_INVALIDATION_H_
#define MMU_CORE_GUEST_KERNEL_TLB_INVALIDATION_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "mmu_core/base/address.h"

namespace mmu {

// A value. Either some pages, or everything.
class TlbInvalidation {
 public:
  // With more pages it is cheaper to drop all translations of the address space
  // than to execute INVLPG for each. Linux has the same limit.
  static constexpr size_t kMaxPages = 33;

  // The page or large page at `gva` lost a translation or a right, or an entry
  // above it, which it would use, points elsewhere now.
  void AddPage(Gva gva) {
    if (everything_) return;
    if (pages_.size() == kMaxPages) return AddEverything();
    pages_.push_back(gva);
  }
  void AddEverything() {
    everything_ = true;
    pages_.clear();
  }

  bool empty() const { return !everything_ && pages_.empty(); }
  bool everything() const { return everything_; }
  const std::vector<Gva>& pages() const { return pages_; }

 private:
  bool everything_ = false;
  std::vector<Gva> pages_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_TLB_INVALIDATION_H_
