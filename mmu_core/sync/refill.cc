#include "mmu_core/sync/refill.h"

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

constinit std::atomic<uint64_t> grace_period_waits{0};  // relaxed, a count

}  // namespace

bool MayFillFromPool() {
  return !InRcuReadSection() && !MmuLockHold::ThisThreadHoldsOne();
}

bool FillFromPool(absl::FunctionRef<Refill()> take) {
  MMU_CHECK(MayFillFromPool());
  AtHook(HookPoint::kTopUp);
  const Refill first = take();
  if (first.enough) return true;
  if (first.in_grace_period == 0) return false;
  grace_period_waits.fetch_add(1, std::memory_order_relaxed);
  // Not RcuSynchronize: the pieces are back only when what was deferred has
  // run, which is after the grace period.
  RcuBarrier();
  return take().enough;
}

uint64_t GracePeriodWaits() {
  return grace_period_waits.load(std::memory_order_relaxed);
}

}  // namespace mmu
