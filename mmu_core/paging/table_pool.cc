#include "mmu_core/paging/table_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <new>

#include "mmu_core/base/aligned_block.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{2} << 20;
constexpr int kPagesPerBlock = static_cast<int>(kBlockBytes / kPageSize);
constexpr int kHeaderPages = static_cast<int>(
    (kPagesPerBlock * sizeof(ShadowPage) + kPageSize - 1) / kPageSize);
constexpr int kTablesPerBlock = kPagesPerBlock - kHeaderPages;

}  // namespace

// Laid over a 2 MiB-aligned block.
struct TablePool::Block {
  Block* next;  // of TablePool::blocks_
  std::array<ShadowPage, kTablesPerBlock> descriptors;

  PageTable* TableAt(int i) {
    return reinterpret_cast<PageTable*>(reinterpret_cast<uintptr_t>(this) +
                                        (kHeaderPages + i) * kPageSize);
  }
};

TablePool::TablePool(uint64_t max_tables) : max_tables_(max_tables) {
  static_assert(sizeof(Block) <= kHeaderPages * kPageSize);
}

TablePool::~TablePool() {
  MMU_CHECK(tables_out() == 0);
  MutexLock lock(mu_);
  while (Block* const block = blocks_) {
    blocks_ = block->next;
    munmap(block, kBlockBytes);
  }
}

TablePool& TablePool::Process() {
  static auto* pool = new TablePool();
  return *pool;
}

TablePool::Chain TablePool::Take(int count) {
  Chain chain;
  MutexLock lock(mu_);
  while (chain.count < count) {
    if (is_at_limit() || (free_ == nullptr && !Grow())) break;
    ShadowPage* page = free_;
    free_ = page->next_free;
    page->next_free = chain.head;
    chain.head = page;
    ++chain.count;
    out_.fetch_add(1, std::memory_order_relaxed);
  }
  // Read under the mutex that EndGracePeriod also takes. So a table that is in
  // its grace period and was counted against the limit above is counted here,
  // too.
  chain.in_grace_period = in_grace_period_.load(std::memory_order_relaxed);
  return chain;
}

void TablePool::Return(ShadowPage* head) {
  MutexLock lock(mu_);
  while (head != nullptr) {
    ShadowPage* next = head->next_free;
    head->next_free = free_;
    free_ = head;
    out_.fetch_sub(1, std::memory_order_relaxed);
    head = next;
  }
}

void TablePool::HandToRcu(ShadowPage& page) {
  MMU_DCHECK(InRcuReadSection());
  RcuDefer(
      &page.rcu,
      [](void* arg) { EndGracePeriod(*static_cast<ShadowPage*>(arg)); }, &page);
}

void TablePool::BeginGracePeriod(const ShadowPage& page) {
  MMU_DCHECK(InRcuReadSection());
  page.pool->in_grace_period_.fetch_add(1, std::memory_order_relaxed);
}

void TablePool::EndGracePeriod(ShadowPage& page) {
  TablePool& pool = *page.pool;
  MutexLock lock(pool.mu_);
  page.next_free = pool.free_;
  pool.free_ = &page;
  pool.in_grace_period_.fetch_sub(1, std::memory_order_relaxed);
  pool.out_.fetch_sub(1, std::memory_order_relaxed);
}

TablePool::Use TablePool::Snapshot() const {
  Use use;
  use.max_tables = max_tables_.load(std::memory_order_relaxed);
  const uint64_t out = tables_out();
  // The two counts are read separately and may differ by some tables.
  use.in_grace_period =
      std::min(out, in_grace_period_.load(std::memory_order_relaxed));
  use.in_use = out - use.in_grace_period;
  return use;
}

void TablePool::SetMaxTables(uint64_t max_tables) {
  max_tables_.store(max_tables, std::memory_order_relaxed);
}

ShadowPage* TablePool::DescriptorOf(const PageTable* table) {
  const auto address = reinterpret_cast<uintptr_t>(table);
  auto* block = reinterpret_cast<Block*>(address & ~(kBlockBytes - 1));
  const uintptr_t page = (address & (kBlockBytes - 1)) / kPageSize;
  return &block->descriptors[page - kHeaderPages];
}

bool TablePool::Grow() {
  void* const memory = MapAlignedBlock(kBlockBytes);
  if (memory == nullptr) return false;
  auto* block = new (memory) Block;
  for (int i = kTablesPerBlock - 1; i >= 0; --i) {
    ShadowPage& page = block->descriptors[i];
    page.table = new (block->TableAt(i)) PageTable;
    page.pool = this;
    page.next_free = free_;
    free_ = &page;
  }
  block->next = blocks_;
  blocks_ = block;
  return true;
}

}  // namespace mmu
