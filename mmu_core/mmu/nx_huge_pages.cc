#include "mmu_core/mmu/nx_huge_pages.h"

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/check.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

NxHugePageList::~NxHugePageList() { MMU_CHECK(count() == 0); }

void NxHugePageList::Track(ShadowPage& page) {
  MMU_DCHECK(InRcuReadSection());
  MutexLock lock(mu_);
  // Another thread may have unlinked the page since it was linked; then Forget
  // has been called and will not be called again.
  if (!page.nx_huge_page_disallowed.load(std::memory_order_relaxed)) return;
  if (page.nx_listed) return;
  page.nx_listed = true;
  page.nx_older = newest_;
  page.nx_newer = nullptr;
  (newest_ != nullptr ? newest_->nx_newer : oldest_) = &page;
  newest_ = &page;
  count_.store(count() + 1, std::memory_order_relaxed);
}

void NxHugePageList::ForgetMarked(ShadowPage& page) {
  MutexLock lock(mu_);
  page.nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
  if (page.nx_listed) Unlist(page);
}

ShadowPage* NxHugePageList::TakeOldest() {
  MMU_DCHECK(InRcuReadSection());
  MutexLock lock(mu_);
  ShadowPage* const page = oldest_;
  if (page == nullptr) return nullptr;
  page->nx_huge_page_disallowed.store(false, std::memory_order_relaxed);
  Unlist(*page);
  return page;
}

void NxHugePageList::ForEach(
    absl::FunctionRef<void(const ShadowPage&)> fn) const {
  MutexLock lock(mu_);
  uint64_t left = count() + 1;
  for (const ShadowPage* page = oldest_; page != nullptr && left > 0; --left) {
    fn(*page);
    page = page->nx_newer;
  }
}

void NxHugePageList::Unlist(ShadowPage& page) {
  (page.nx_older != nullptr ? page.nx_older->nx_newer : oldest_) =
      page.nx_newer;
  (page.nx_newer != nullptr ? page.nx_newer->nx_older : newest_) =
      page.nx_older;
  page.nx_older = nullptr;
  page.nx_newer = nullptr;
  page.nx_listed = false;
  count_.store(count() - 1, std::memory_order_relaxed);
}

}  // namespace mmu
