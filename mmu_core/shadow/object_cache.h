// A thread's own stock of objects of one type, filled before it takes mmu_lock
// so that nothing is allocated under the lock (SHD-19, LCK-01).

#ifndef MMU_CORE_SHADOW_OBJECT_CACHE_H_
#define MMU_CORE_SHADOW_OBJECT_CACHE_H_

#include <new>

#include "absl/status/status.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

// Externally synchronised by the thread or vCPU that owns it.
template <typename T>
class ObjectCache {
 public:
  static constexpr int kCapacity = 40;

  // The pool that all VMs of the process share. Never destroyed.
  static ObjectPool& ProcessPool() {
    static auto* pool = new ObjectPool(sizeof(T));
    return *pool;
  }

  // `pool` is for objects of this size.
  explicit ObjectCache(ObjectPool& pool) : pool_(pool) {
    static_assert(alignof(T) <= 64);
    MMU_CHECK(pool.object_bytes() >= sizeof(T));
  }
  ~ObjectCache() { Clear(); }
  ObjectCache(const ObjectCache&) = delete;
  ObjectCache& operator=(const ObjectCache&) = delete;

  // Fills up to kCapacity if the stock has fewer than `min`. If the pool has no
  // free object, waits for objects that are being returned to it. Returns false
  // if fewer than `min` are available even then; the stock keeps those it got
  // (SHD-81). Allocates no other memory. REQUIRES: MayFillFromPool()
  // (sync/refill.h).
  bool TryTopUp(int min) {
    MMU_DCHECK(MayFillFromPool());
    if (count_ >= min) return true;
    return FillFromPool([&] {
      ObjectPool::Chain chain = pool_.Take(kCapacity - count_);
      while (chain.head != nullptr) {
        FreeObject* const next = chain.head->next;
        Push(chain.head);
        chain.head = next;
      }
      return Refill{.enough = count_ >= min,
                    .in_grace_period = chain.in_grace_period};
    });
  }
  // The same for callers that report the error: RESOURCE_EXHAUSTED
  // MMU_PAGES_EXHAUSTED (ENOMEM). Allocates the error's text.
  absl::Status TopUp(int min) {
    if (TryTopUp(min)) return absl::OkStatus();
    return MakeError(absl::StatusCode::kResourceExhausted,
                     {Reason::kMmuPagesExhausted, "", /*ENOMEM*/ 12},
                     "the host has no memory for another shadow page; delete "
                     "a VM");
  }

  // A new T. REQUIRES: count() > 0 (checked).
  T* Take() {
    MMU_CHECK(count_ > 0);
    FreeObject* const object = head_;
    head_ = object->next;
    --count_;
    return new (object) T;
  }
  // Destroys an object that no other thread can read, and returns its memory to
  // its pool like ObjectPool::Return.
  static void Return(T* object) {
    object->~T();
    ObjectPool::Return(new (object) FreeObject);
  }
  // The same in two steps for an object that other threads may still read.
  // BeginGracePeriod is called before the object is handed to RCU, within one
  // RCU read section (checked); EndGracePeriod is called in the RCU callback
  // and destroys the object.
  static void BeginGracePeriod(const T& object) {
    ObjectPool::BeginGracePeriod(&object);
  }
  static void EndGracePeriod(T* object) {
    object->~T();
    ObjectPool::EndGracePeriod(new (object) FreeObject);
  }
  void Clear() {
    ObjectPool::Return(head_);
    head_ = nullptr;
    count_ = 0;
  }

  int count() const { return count_; }
  // For the auditor: the number of objects in the chain, or count() + 1 if
  // there are more.
  int CountChain() const {
    int found = 0;
    for (const FreeObject* object = head_; object != nullptr && found <= count_;
         object = object->next) {
      ++found;
    }
    return found;
  }

 private:
  void Push(FreeObject* object) {
    object->next = head_;
    head_ = object;
    ++count_;
  }

  ObjectPool& pool_;
  FreeObject* head_ = nullptr;
  int count_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_OBJECT_CACHE_H_
