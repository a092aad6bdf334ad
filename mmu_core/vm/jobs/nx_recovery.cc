#include "mmu_core/vm/jobs/nx_recovery.h"

#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/thread.h"
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/timed_wait.h"
#include "mmu_core/vm/core/vm_core.h"

namespace mmu {

uint64_t RecoverNxHugePages(VmCore& vm, uint32_t ratio) {
  if (ratio == 0) return 0;
  // A recovery would be useless in a logged slot, where pages are mapped small
  // in any case.
  const auto keep = [&vm](const ShadowPage& page) {
    const Memslot* slot =
        vm.slots.Active(page.role.as_id()).FindByGfn(page.gfn);
    return slot != nullptr && slot->dirty_log_enabled();
  };
  return vm.mmus.RecoverNxHugePages(ratio, keep, nullptr);
}

NxRecovery::NxRecovery(VmCore& vm, NxParameters& parameters)
    : vm_(vm),
      parameters_(parameters),
      listener_{.on_mitigation = [this](bool on) { SetMitigated(on); },
                .on_recovery =
                    [this] {
                      EnsureWorker();
                      Wake();
                    }} {
  parameters_.Register(&listener_);
}

NxRecovery::~NxRecovery() {
  parameters_.Unregister(&listener_);
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  woken_.NotifyAll();
  if (worker_.joinable()) worker_.join();
}

void NxRecovery::SetMitigated(bool on) {
  if (vm_.config.nx_huge_pages == VmConfig::NxHugePages::kOptOut) return;
  {
    MutexLock slots(vm_.slots.slots_lock);
    vm_.nx_huge_pages.SetMitigated(on);
    // Existing mappings were made under the old setting.
    vm_.mmus.FastZapAll(LockOp::kZap, nullptr);
  }
  EnsureWorker();
  Wake();
}

absl::Status NxRecovery::status() const {
  MutexLock lock(mu_);
  return status_;
}

void NxRecovery::EnsureWorker() {
  if (worker_.joinable() || !vm_.nx_huge_pages.mitigated()) return;
  absl::StatusOr<std::thread> worker = MakeThread([this] { Work(); });
  if (worker.ok()) worker_ = *std::move(worker);
  MutexLock lock(mu_);
  status_ = worker.status();
}

void NxRecovery::Wake() {
  {
    MutexLock lock(mu_);
    ++wakes_;
  }
  woken_.NotifyAll();
}

void NxRecovery::Work() {
  MonotonicTime last_run = MonotonicTime::Now();
  for (;;) {
    uint64_t seen = 0;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      seen = wakes_;
    }
    // mu_ must not be held here: a change of the parameters takes mu_ under the
    // parameters' lock.
    const NxRecoverySettings settings = parameters_.recovery();
    const absl::Duration period = vm_.nx_huge_pages.mitigated()
                                      ? RecoveryPeriodOf(settings)
                                      : absl::InfiniteDuration();
    const MonotonicTime next_run = last_run + period;
    if (MonotonicTime::Now() >= next_run) {
      RecoverNxHugePages(vm_, settings.ratio);
      last_run = MonotonicTime::Now();
      continue;
    }
    MutexLock lock(mu_);
    if (stop_) return;
    if (wakes_ != seen) continue;
    WaitUntil(woken_, mu_, next_run);
  }
}

}  // namespace mmu
