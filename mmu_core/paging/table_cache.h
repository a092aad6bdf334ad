// A thread's own stock of page tables, filled before it takes mmu_lock so that
// nothing is allocated under the lock (TDP-43, LCK-01).

#ifndef MMU_CORE_PAGING_TABLE_CACHE_H_
#define MMU_CORE_PAGING_TABLE_CACHE_H_

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

// Externally synchronised by the thread or vCPU that owns it.
class TableCache {
 public:
  static constexpr int kCapacity = 40;

  explicit TableCache(TablePool& pool) : pool_(pool) {}
  ~TableCache() { Clear(); }
  TableCache(const TableCache&) = delete;
  TableCache& operator=(const TableCache&) = delete;

  // Fills up to `fill` tables if the stock has fewer than `min`. If the pool
  // has no free table, waits for tables that are being returned to it. Returns
  // false if fewer than `min` are available even then; the stock keeps the
  // tables it got. Allocates no other memory. REQUIRES: MayFillFromPool()
  // (sync/refill.h).
  bool TryTopUp(int min, int fill = kCapacity) {
    MMU_DCHECK(MayFillFromPool());
    if (count_ >= min) return true;
    return FillFromPool([&] {
      TablePool::Chain chain = pool_.Take(fill - count_);
      while (chain.head != nullptr) {
        ShadowPage* next = chain.head->next_free;
        Put(chain.head);
        chain.head = next;
      }
      return Refill{.enough = count_ >= min,
                    .in_grace_period = chain.in_grace_period};
    });
  }
  // The same for callers that report the error: RESOURCE_EXHAUSTED
  // MMU_PAGES_EXHAUSTED (ENOMEM). Allocates the error's text.
  absl::Status TopUp(int min, int fill = kCapacity) {
    if (TryTopUp(min, fill)) return absl::OkStatus();
    return MakeError(absl::StatusCode::kResourceExhausted,
                     {Reason::kMmuPagesExhausted, "", /*ENOMEM*/ 12},
                     pool_.is_at_limit()
                         ? "as many page tables are in use as may be; delete a "
                           "VM or raise the limit"
                         : "the host has no memory for another page table; "
                           "delete a VM");
  }

  // REQUIRES: count() > 0. The contents of the table are undefined.
  ShadowPage* Take() {
    ShadowPage* page = head_;
    head_ = page->next_free;
    page->next_free = nullptr;
    --count_;
    return page;
  }
  void Put(ShadowPage* page) {
    page->next_free = head_;
    head_ = page;
    ++count_;
  }
  void Clear() {
    if (head_ != nullptr) pool_.Return(head_);
    head_ = nullptr;
    count_ = 0;
  }

  int count() const { return count_; }
  // For the auditor: calls fn(const ShadowPage&) for each table, and at most
  // count() + 1 times, in case a table is in the chain twice.
  template <typename Fn>
  void ForEach(Fn fn) const {
    int left = count_ + 1;
    for (const ShadowPage* page = head_; page != nullptr && left > 0; --left) {
      fn(*page);
      page = page->next_free;
    }
  }

 private:
  TablePool& pool_;
  ShadowPage* head_ = nullptr;
  int count_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_CACHE_H_
