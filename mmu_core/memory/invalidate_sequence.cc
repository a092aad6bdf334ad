#include "mmu_core/memory/invalidate_sequence.h"

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/mutex.h"

namespace mmu {

void InvalidationGate::Announce() {
  MutexLock lock(mu_);
  ++announced_;
}

void InvalidationGate::Conclude() {
  MutexLock lock(mu_);
  MMU_CHECK(announced_ > 0);
  if (--announced_ == 0) idle_.NotifyAll();
}

void InvalidationGate::PublishWhenIdle(absl::FunctionRef<void()> publish) {
  MutexLock lock(mu_);
  while (announced_ > 0) idle_.Wait(mu_);
  publish();
  WakeWaiters();
}

void InvalidationGate::Begin() {
  if (in_progress_.load(std::memory_order_relaxed) == 0) {
    range_start_.store(0, std::memory_order_relaxed);
    range_end_.store(0, std::memory_order_relaxed);
  }
  in_progress_.fetch_add(1, std::memory_order_release);
}

void InvalidationGate::AddRange(GfnRange gfns) {
  MMU_CHECK(in_progress_.load(std::memory_order_relaxed) > 0);
  if (gfns.empty()) return;
  const uint64_t start = range_start_.load(std::memory_order_relaxed);
  const uint64_t end = range_end_.load(std::memory_order_relaxed);
  const bool first = end == 0;
  range_start_.store(
      first ? gfns.start.value() : std::min(start, gfns.start.value()),
      std::memory_order_relaxed);
  range_end_.store(std::max(end, gfns.end.value()), std::memory_order_relaxed);
}

void InvalidationGate::End() {
  MMU_CHECK(in_progress_.load(std::memory_order_relaxed) > 0);
  // The sequence changes before the count: a thread that no longer counts the
  // invalidation must see the changed sequence. MissingFrame::Refused looks
  // without mmu_lock.
  sequence_.fetch_add(1, std::memory_order_release);
  AtHook(HookPoint::kSequenceToCount);
  in_progress_.fetch_sub(1, std::memory_order_release);
  WakeWaiters();
}

void InvalidationGate::WaitWhile(absl::FunctionRef<bool()> held_back,
                                 absl::Duration timeout) {
  MutexLock lock(changed_mu_);
  if (!held_back()) return;
  changed_.WaitFor(changed_mu_, absl::ToChronoNanoseconds(timeout));
}

void InvalidationGate::WakeWaiters() {
  { MutexLock lock(changed_mu_); }
  changed_.NotifyAll();
}

}  // namespace mmu
