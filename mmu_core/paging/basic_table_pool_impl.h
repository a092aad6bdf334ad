// The implementation of BasicTablePool, for the files that instantiate it.

#ifndef MMU_CORE_PAGING_BASIC_TABLE_POOL_IMPL_H_
#define MMU_CORE_PAGING_BASIC_TABLE_POOL_IMPL_H_

#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <new>

#include "mmu_core/base/address.h"
#include "mmu_core/base/aligned_block.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/basic_table_pool.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

// Laid over a 2 MiB-aligned block.
template <typename Page>
struct BasicTablePool<Page>::Block {
  using Table = typename Page::Table;
  static constexpr uint64_t kBytes = uint64_t{2} << 20;
  static constexpr uint64_t kTableBytes = sizeof(Table);
  // Of the descriptors, and of the tables behind them.
  static constexpr int kAll = static_cast<int>(kBytes / kTableBytes);
  static constexpr int kHeader =
      static_cast<int>((kAll * sizeof(Page) + kTableBytes - 1) / kTableBytes);
  static constexpr int kTables = kAll - kHeader;
  static constexpr uint64_t kUnits = kTableBytes / kPageSize;

  Block* next;  // of BasicTablePool::blocks_
  std::array<Page, kTables> descriptors;

  Table* TableAt(int i) {
    return reinterpret_cast<Table*>(reinterpret_cast<uintptr_t>(this) +
                                    (kHeader + i) * kTableBytes);
  }
};

template <typename Page>
BasicTablePool<Page>::~BasicTablePool() {
  static_assert(sizeof(Block) <= Block::kHeader * Block::kTableBytes);
  MMU_CHECK(tables_out() == 0);
  MutexLock lock(mu_);
  while (Block* const block = blocks_) {
    blocks_ = block->next;
    munmap(block, Block::kBytes);
  }
}

template <typename Page>
BasicTablePool<Page>& BasicTablePool<Page>::Process() {
  static auto* pool = new BasicTablePool(TableBudget::Process());
  return *pool;
}

template <typename Page>
typename BasicTablePool<Page>::Chain BasicTablePool<Page>::Take(int count) {
  Chain chain;
  MutexLock lock(mu_);
  const TableBudget::Grant grant =
      budget_.Take(static_cast<uint64_t>(count), Block::kUnits);
  chain.in_grace_period = grant.in_grace_period;
  const int granted = static_cast<int>(grant.tables);
  while (chain.count < granted) {
    if (free_ == nullptr && !Grow()) break;
    Page* page = free_;
    free_ = page->next_free;
    page->next_free = chain.head;
    chain.head = page;
    ++chain.count;
  }
  out_.fetch_add(static_cast<uint64_t>(chain.count), std::memory_order_relaxed);
  budget_.Return(static_cast<uint64_t>(granted - chain.count) * Block::kUnits);
  return chain;
}

template <typename Page>
void BasicTablePool<Page>::Return(Page* head) {
  MutexLock lock(mu_);
  while (head != nullptr) {
    Page* next = head->next_free;
    head->next_free = free_;
    free_ = head;
    out_.fetch_sub(1, std::memory_order_relaxed);
    budget_.Return(Block::kUnits);
    head = next;
  }
}

template <typename Page>
void BasicTablePool<Page>::HandToRcu(Page& page) {
  MMU_DCHECK(InRcuReadSection());
  RcuDefer(
      &page.rcu, [](void* arg) { EndGracePeriod(*static_cast<Page*>(arg)); },
      &page);
}

template <typename Page>
void BasicTablePool<Page>::BeginGracePeriod(const Page& page) {
  MMU_DCHECK(InRcuReadSection());
  page.pool->budget_.BeginGracePeriod(Block::kUnits);
}

template <typename Page>
void BasicTablePool<Page>::EndGracePeriod(Page& page) {
  BasicTablePool& pool = *page.pool;
  // Take holds this mutex while it asks the budget. So a table that it does not
  // find among the free ones is counted as in its grace period.
  MutexLock lock(pool.mu_);
  page.next_free = pool.free_;
  pool.free_ = &page;
  pool.out_.fetch_sub(1, std::memory_order_relaxed);
  pool.budget_.EndGracePeriod(Block::kUnits);
}

template <typename Page>
Page* BasicTablePool<Page>::DescriptorOf(const typename Page::Table* table) {
  const auto address = reinterpret_cast<uintptr_t>(table);
  auto* block = reinterpret_cast<Block*>(address & ~(Block::kBytes - 1));
  const uintptr_t page = (address & (Block::kBytes - 1)) / Block::kTableBytes;
  return &block->descriptors[page - Block::kHeader];
}

template <typename Page>
bool BasicTablePool<Page>::Grow() {
  void* const memory = MapAlignedBlock(Block::kBytes);
  if (memory == nullptr) return false;
  auto* block = new (memory) Block;
  for (int i = Block::kTables - 1; i >= 0; --i) {
    Page& page = block->descriptors[i];
    page.table = new (block->TableAt(i)) typename Page::Table;
    page.pool = this;
    page.next_free = free_;
    free_ = &page;
  }
  block->next = blocks_;
  blocks_ = block;
  return true;
}

}  // namespace mmu

#endif  // MMU_CORE_PAGING_BASIC_TABLE_POOL_IMPL_H_
