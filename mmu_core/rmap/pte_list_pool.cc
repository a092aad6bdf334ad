#include "mmu_core/rmap/pte_list_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>

#include "mmu_core/base/aligned_block.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"

namespace mmu {
namespace {

constexpr size_t kBlockBytes = size_t{256} << 10;
// The block's header takes the place of one descriptor.
constexpr int kDescsPerBlock =
    static_cast<int>(kBlockBytes / sizeof(PteListDesc)) - 1;

}  // namespace

// Laid over an aligned block.
struct PteListPool::Block {
  PteListPool* pool;
  Block* next;  // of PteListPool::blocks_
  std::array<PteListDesc, kDescsPerBlock> descs;

  static Block* Of(PteListDesc* desc) {
    return reinterpret_cast<Block*>(reinterpret_cast<uintptr_t>(desc) &
                                    ~(kBlockBytes - 1));
  }
};

PteListPool::PteListPool(uint64_t max_descs) : max_descs_(max_descs) {
  static_assert(sizeof(Block) == kBlockBytes);
}

PteListPool::~PteListPool() {
  MMU_CHECK(out_.load(std::memory_order_relaxed) == 0);
  MutexLock lock(mu_);
  while (Block* const block = blocks_) {
    blocks_ = block->next;
    munmap(block, kBlockBytes);
  }
}

PteListPool& PteListPool::Process() {
  static auto* pool = new PteListPool();
  return *pool;
}

PteListPool::Chain PteListPool::Take(int count) {
  Chain chain;
  MutexLock lock(mu_);
  const uint64_t max = max_descs_.load(std::memory_order_relaxed);
  while (chain.count < count) {
    if (max != 0 && out_.load(std::memory_order_relaxed) >= max) break;
    if (free_ == nullptr) {
      // Acquire: all earlier uses of the descriptors are over.
      free_ = returned_.exchange(nullptr, std::memory_order_acquire);
    }
    if (free_ == nullptr && !Grow()) break;
    PteListDesc* desc = free_;
    free_ = desc->next;
    desc->next = chain.head;
    chain.head = desc;
    ++chain.count;
    out_.fetch_add(1, std::memory_order_relaxed);
  }
  out_peak_ = std::max(out_peak_, out_.load(std::memory_order_relaxed));
  return chain;
}

// RACE-29. Many threads push; one thread at a time takes the whole stack. The
// ABA problem of such a stack (the old top becomes the top again with another
// next) is harmless here, because no thread takes a single descriptor:
//
//   1. A reads the top, x, and makes its chain's last descriptor point at it.
//   2. B takes the whole stack, hands x out, gets x back and pushes it.
//   3. A's exchange finds x at the top and succeeds. Below A's chain is x,
//      which is indeed the top, with its current next.
//
// If in 2 B takes the stack and pushes nothing, the exchange fails and A reads
// the top again. Release: the thread that takes the stack also sees the end of
// the descriptors' earlier use, and their next pointers.
void PteListPool::Return(PteListDesc* head) {
  if (head == nullptr) return;
  uint64_t count = 1;
  PteListDesc* last = head;
  for (; last->next != nullptr; last = last->next) ++count;
  PteListPool& pool = *Block::Of(head)->pool;
  PteListDesc* top = pool.returned_.load(std::memory_order_relaxed);
  do {
    last->next = top;
    AtHook(HookPoint::kReturnToPush);
  } while (!pool.returned_.compare_exchange_weak(
      top, head, std::memory_order_release, std::memory_order_relaxed));
  pool.out_.fetch_sub(count, std::memory_order_relaxed);
}

void PteListPool::SetMaxDescs(uint64_t max_descs) {
  max_descs_.store(max_descs, std::memory_order_relaxed);
}

PteListPool::Stats PteListPool::Snapshot() const {
  MutexLock lock(mu_);
  return {.descs_out = out_.load(std::memory_order_relaxed),
          .descs_out_peak = out_peak_,
          .bytes = block_count_ * kBlockBytes};
}

bool PteListPool::Grow() {
  void* const memory = MapAlignedBlock(kBlockBytes);
  if (memory == nullptr) return false;
  auto* block = new (memory) Block;
  block->pool = this;
  for (int i = kDescsPerBlock - 1; i >= 0; --i) {
    block->descs[i].next = free_;
    free_ = &block->descs[i];
  }
  block->next = blocks_;
  blocks_ = block;
  ++block_count_;
  return true;
}

}  // namespace mmu
