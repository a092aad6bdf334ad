#include "mmu_core/tlb/flush_queue.h"

#include <utility>

namespace mmu {

void FlushQueue::Add(const TlbFlush& flush) {
  MutexLock lock(mu_);
  if (pending_.all) return;
  const bool everything = !flush.mmu.has_value() && flush.CoversAllGfns();
  if (everything || pending_.count == PendingFlushes::kCapacity) {
    pending_.all = true;
    pending_.count = 0;
    return;
  }
  pending_.flushes[pending_.count] = flush;
  ++pending_.count;
}

PendingFlushes FlushQueue::Take() {
  MutexLock lock(mu_);
  return std::exchange(pending_, PendingFlushes());
}

PendingFlushes FlushQueue::Peek() const {
  MutexLock lock(mu_);
  return pending_;
}

}  // namespace mmu
