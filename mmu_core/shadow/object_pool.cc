#include "mmu_core/shadow/object_pool.h"

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "mmu_core/base/aligned_block.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

constexpr size_t kBlockBytes = size_t{256} << 10;
constexpr size_t kAlignment = 64;

constexpr size_t RoundUpToAlignment(size_t bytes) {
  return (bytes + kAlignment - 1) & ~(kAlignment - 1);
}

}  // namespace

// The header of an aligned block.
struct alignas(kAlignment) ObjectPool::Block {
  ObjectPool* pool;
  Block* next;  // of ObjectPool::blocks_

  static Block* Of(const void* object) {
    return reinterpret_cast<Block*>(reinterpret_cast<uintptr_t>(object) &
                                    ~(kBlockBytes - 1));
  }
};

ObjectPool::ObjectPool(size_t object_bytes, uint64_t max_objects)
    : object_bytes_(RoundUpToAlignment(object_bytes)),
      max_objects_(max_objects) {
  MMU_CHECK(object_bytes_ <= kBlockBytes / 4);
}

ObjectPool::~ObjectPool() {
  MMU_CHECK(objects_out() == 0);
  MutexLock lock(mu_);
  while (Block* const block = blocks_) {
    blocks_ = block->next;
    munmap(block, kBlockBytes);
  }
}

ObjectPool::Chain ObjectPool::Take(int count) {
  Chain chain;
  MutexLock lock(mu_);
  const uint64_t max = max_objects_.load(std::memory_order_relaxed);
  while (chain.count < count) {
    if (max != 0 && objects_out() >= max) break;
    if (free_ == nullptr && !Grow()) break;
    FreeObject* object = free_;
    free_ = object->next;
    object->next = chain.head;
    chain.head = object;
    ++chain.count;
    out_.fetch_add(1, std::memory_order_relaxed);
  }
  // Under the mutex, as in EndGracePeriod: see TablePool::Take.
  chain.in_grace_period = in_grace_period_.load(std::memory_order_relaxed);
  return chain;
}

void ObjectPool::Return(FreeObject* head) {
  if (head == nullptr) return;
  ObjectPool& pool = *Block::Of(head)->pool;
  MutexLock lock(pool.mu_);
  while (head != nullptr) {
    FreeObject* const next = head->next;
    head->next = pool.free_;
    pool.free_ = head;
    pool.out_.fetch_sub(1, std::memory_order_relaxed);
    head = next;
  }
}

void ObjectPool::BeginGracePeriod(const void* object) {
  MMU_DCHECK(InRcuReadSection());
  Block::Of(object)->pool->in_grace_period_.fetch_add(
      1, std::memory_order_relaxed);
}

void ObjectPool::EndGracePeriod(FreeObject* object) {
  ObjectPool& pool = *Block::Of(object)->pool;
  MutexLock lock(pool.mu_);
  object->next = pool.free_;
  pool.free_ = object;
  pool.in_grace_period_.fetch_sub(1, std::memory_order_relaxed);
  pool.out_.fetch_sub(1, std::memory_order_relaxed);
}

bool ObjectPool::Grow() {
  void* const memory = MapAlignedBlock(kBlockBytes);
  if (memory == nullptr) return false;
  auto* block = new (memory) Block{this, nullptr};
  block->next = blocks_;
  blocks_ = block;
  auto* const bytes = static_cast<std::byte*>(memory);
  for (size_t at = sizeof(Block); at + object_bytes_ <= kBlockBytes;
       at += object_bytes_) {
    auto* object = new (bytes + at) FreeObject;
    object->next = free_;
    free_ = object;
  }
  return true;
}

}  // namespace mmu
