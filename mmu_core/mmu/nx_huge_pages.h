// The NX huge page mitigation of one VM: whether it is on, and the tables that
// replace huge pages because the guest executes from them.
//
// On processors with the iTLB multi-hit erratum a guest that executes from a
// huge page while its size changes can halt the machine. So huge leafs are not
// executable, and a fetch from one replaces it by small pages. The table that
// holds the small pages is *disallowed* to become a huge page again, or reads
// and fetches would change it back and forth. It is also *listed*, oldest
// first, so that recovery can try the huge page again (vm/jobs/nx_recovery.h).
//
// (SPTE-50..54, TDP-40.)

#ifndef MMU_CORE_MMU_NX_HUGE_PAGES_H_
#define MMU_CORE_MMU_NX_HUGE_PAGES_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/stats/labels.h"

namespace mmu {

// The listed tables of one MMU, oldest first. Thread-safe.
class NxHugePageList {
 public:
  NxHugePageList() = default;
  ~NxHugePageList();
  NxHugePageList(const NxHugePageList&) = delete;
  NxHugePageList& operator=(const NxHugePageList&) = delete;

  // Lists `page`, which was linked and disallowed. No effect if it was unlinked
  // since, or is listed already: a shadow page may be linked more than once.
  // REQUIRES: an RCU read section.
  void Track(ShadowPage& page);
  // To be called when the page is unlinked or zapped: removes it from the list,
  // if it is listed, and clears its mark. Costs one load if the page is not
  // marked.
  void Forget(ShadowPage& page) {
    if (page.nx_huge_page_disallowed.load(std::memory_order_relaxed)) {
      ForgetMarked(page);
    }
  }
  // Takes the oldest page off the list and clears its mark; null if the list is
  // empty. The page stays allocated until the end of the caller's RCU read
  // section. REQUIRES: an RCU read section.
  ShadowPage* TakeOldest();

  // For the auditor: calls `fn` for each listed page, oldest first, and at most
  // count() + 1 times, in case the links form a circle.
  void ForEach(absl::FunctionRef<void(const ShadowPage&)> fn) const;

  uint64_t count() const { return count_.load(std::memory_order_relaxed); }
  // One in `ratio` of the pages listed now, rounded up. `ratio` is not 0.
  uint64_t ShareOf(uint32_t ratio) const {
    return (count() + ratio - 1) / ratio;
  }

 private:
  void ForgetMarked(ShadowPage& page);
  void Unlist(ShadowPage& page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::atomic<uint64_t> count_{0};  // written under mu_
  mutable Mutex mu_;                // a leaf below mmu_lock
  ShadowPage* oldest_ ABSL_GUARDED_BY(mu_) = nullptr;
  ShadowPage* newest_ ABSL_GUARDED_BY(mu_) = nullptr;
};

// Thread-safe.
class NxHugePages {
 public:
  NxHugePages() = default;
  NxHugePages(const NxHugePages&) = delete;
  NxHugePages& operator=(const NxHugePages&) = delete;

  // Changes only under slots_lock, followed by a fast zap of the whole VM. A
  // fault reads it under mmu_lock: a fault that saw the old value maps into a
  // root that is thrown away.
  bool mitigated() const { return mitigated_.load(std::memory_order_relaxed); }
  void SetMitigated(bool on) {
    mitigated_.store(on, std::memory_order_relaxed);
  }

  // One list per MMU, which recovers it under mmu_lock in its own mode.
  NxHugePageList& of(MmuKind kind) { return lists_[static_cast<size_t>(kind)]; }
  const NxHugePageList& of(MmuKind kind) const {
    return lists_[static_cast<size_t>(kind)];
  }

  // STAT-12, nx_lpage_splits: the listed pages of all MMUs. A gauge (SPTE-54).
  uint64_t count() const {
    uint64_t sum = 0;
    for (const NxHugePageList& list : lists_) sum += list.count();
    return sum;
  }

 private:
  std::atomic<bool> mitigated_{false};
  std::array<NxHugePageList, kMmuKinds> lists_;
};

}  // namespace mmu

#endif  // MMU_CORE_MMU_NX_HUGE_PAGES_H_
