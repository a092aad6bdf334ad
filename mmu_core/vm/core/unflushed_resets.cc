#include "mmu_core/vm/core/unflushed_resets.h"

namespace mmu {

UnflushedResets::Reset UnflushedResets::Begin() {
  MutexLock lock(mu_);
  ++count_;
  return Reset(this);
}

void UnflushedResets::WaitForNone() {
  MutexLock lock(mu_);
  ++waiting_;
  while (count_ != 0) ended_.Wait(mu_);
  --waiting_;
}

bool UnflushedResets::IsAwaited() const {
  MutexLock lock(mu_);
  return waiting_ != 0;
}

void UnflushedResets::End() {
  MutexLock lock(mu_);
  if (--count_ == 0) ended_.NotifyAll();
}

}  // namespace mmu
