// A thread's own stock of page tables, filled before it takes mmu_lock so that
// nothing is allocated under the lock (TDP-43, LCK-01).

#ifndef MMU_CORE_PAGING_TABLE_CACHE_H_
#define MMU_CORE_PAGING_TABLE_CACHE_H_

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/paging/basic_table_pool.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

// `Page` is the descriptor of a table (paging/basic_table_pool.h). Externally
// synchronised by the thread or vCPU that owns it.
template <typename Page>
class BasicTableCache {
 public:
  using Pool = BasicTablePool<Page>;
  static constexpr int kCapacity = 40;

  explicit BasicTableCache(Pool& pool) : pool_(pool) {}
  ~BasicTableCache() { Clear(); }
  BasicTableCache(const BasicTableCache&) = delete;
  BasicTableCache& operator=(const BasicTableCache&) = delete;

  // Fills up to `fill` tables if the stock has fewer than `min`. If the pool
  // has no free table, waits for tables that are being returned to it. Returns
  // false if fewer than `min` are available even then; the stock keeps the
  // tables it got. Allocates no other memory. REQUIRES: MayFillFromPool()
  // (sync/refill.h).
  bool TryTopUp(int min, int fill = kCapacity) {
    MMU_DCHECK(MayFillFromPool());
    if (count_ >= min) return true;
    return FillFromPool([&] {
      typename Pool::Chain chain = pool_.Take(fill - count_);
      while (chain.head != nullptr) {
        Page* next = chain.head->next_free;
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
  Page* Take() {
    Page* page = head_;
    head_ = page->next_free;
    page->next_free = nullptr;
    --count_;
    return page;
  }
  void Put(Page* page) {
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
  // Whether the pool's limit is why it has no tables.
  bool pool_is_at_limit() const { return pool_.is_at_limit(); }
  // For the auditor: calls fn(const Page&) for each table, and at most
  // count() + 1 times, in case a table is in the chain twice.
  template <typename Fn>
  void ForEach(Fn fn) const {
    int left = count_ + 1;
    for (const Page* page = head_; page != nullptr && left > 0; --left) {
      fn(*page);
      page = page->next_free;
    }
  }

 private:
  Pool& pool_;
  Page* head_ = nullptr;
  int count_ = 0;
};

// Of the x86 MMUs.
using TableCache = BasicTableCache<ShadowPage>;

}  // namespace mmu

#endif  // MMU_CORE_PAGING_TABLE_CACHE_H_
