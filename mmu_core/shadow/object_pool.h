// Memory for the small objects that shadow pages need beside their tables:
// states and translation arrays.
//
// Like paging/table_pool.h, for objects of any one size: the pool takes blocks
// from the kernel, faults each in at once, and hands out pieces of them;
// returned pieces are reused. The pool does not know the contents of a piece;
// shadow/object_cache.h does.

#ifndef MMU_CORE_SHADOW_OBJECT_POOL_H_
#define MMU_CORE_SHADOW_OBJECT_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

// An unused piece of memory.
struct FreeObject {
  FreeObject* next = nullptr;
};

// Thread-safe.
class ObjectPool {
 public:
  // `object_bytes` is at most 64 KiB; pieces are aligned to 64 bytes.
  // `max_objects` 0 means no limit.
  explicit ObjectPool(size_t object_bytes, uint64_t max_objects = 0);
  // REQUIRES: all pieces were returned.
  ~ObjectPool();
  ObjectPool(const ObjectPool&) = delete;
  ObjectPool& operator=(const ObjectPool&) = delete;

  // Takes up to `count` pieces and chains them; fewer or none (null) if the
  // limit or memory is exhausted. May sleep: never call it under mmu_lock
  // (LCK-01).
  struct Chain {
    FreeObject* head = nullptr;
    int count = 0;
    // The pool's pieces that were in their grace period at that moment.
    uint64_t in_grace_period = 0;
  };
  Chain Take(int count);

  // Returns a chain (may be null) of unused pieces, all of one pool, to that
  // pool. Takes a mutex: not under mmu_lock.
  static void Return(FreeObject* head);

  // The same in two steps, as in TablePool, for a piece that other threads may
  // still read. BeginGracePeriod is called before the piece at `object` is
  // handed to RCU, within one RCU read section (checked), and takes no lock;
  // EndGracePeriod is called in the RCU callback.
  static void BeginGracePeriod(const void* object);
  static void EndGracePeriod(FreeObject* object);

  size_t object_bytes() const { return object_bytes_; }
  uint64_t objects_out() const { return out_.load(std::memory_order_relaxed); }
  // Limits the pieces that may be out at once from now on.
  void SetMaxObjects(uint64_t max_objects) {
    max_objects_.store(max_objects, std::memory_order_relaxed);
  }

 private:
  struct Block;
  bool Grow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t object_bytes_;
  Mutex mu_;  // see mmu_core/LOCKING.md
  FreeObject* free_ ABSL_GUARDED_BY(mu_) = nullptr;
  // A list within the blocks themselves, so a further block needs no other
  // memory.
  Block* blocks_ ABSL_GUARDED_BY(mu_) = nullptr;
  // Relaxed counts. in_grace_period_ is a part of out_.
  std::atomic<uint64_t> out_{0};
  std::atomic<uint64_t> in_grace_period_{0};
  std::atomic<uint64_t> max_objects_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_OBJECT_POOL_H_
