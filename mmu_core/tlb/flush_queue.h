// The flushes that a vCPU has to carry out before its next access.

#ifndef MMU_CORE_TLB_FLUSH_QUEUE_H_
#define MMU_CORE_TLB_FLUSH_QUEUE_H_

#include <array>
#include <cstddef>

#include "absl/base/thread_annotations.h"
#include "absl/types/span.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {

// The contents of a queue. A value.
struct PendingFlushes {
  static constexpr size_t kCapacity = 16;

  // More flushes were queued than the queue can hold: everything must go.
  bool all = false;
  size_t count = 0;
  std::array<TlbFlush, kCapacity> flushes;

  bool empty() const { return !all && count == 0; }
  absl::Span<const TlbFlush> span() const { return {flushes.data(), count}; }
};

// Any thread adds, the vCPU's thread takes. Bounded, because nothing may be
// allocated under mmu_lock: a flush that finds no room turns the queue into a
// flush of everything, as in KVM's queue of a Hyper-V guest's flushes.
// Thread-safe.
class FlushQueue {
 public:
  FlushQueue() = default;
  FlushQueue(const FlushQueue&) = delete;
  FlushQueue& operator=(const FlushQueue&) = delete;

  void Add(const TlbFlush& flush);
  // Returns the contents and empties the queue.
  PendingFlushes Take();
  PendingFlushes Peek() const;

 private:
  mutable Mutex mu_;  // a leaf: see mmu_core/LOCKING.md
  PendingFlushes pending_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_FLUSH_QUEUE_H_
