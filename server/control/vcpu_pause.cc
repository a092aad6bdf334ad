#include "server/control/vcpu_pause.h"

#include <algorithm>

#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/vm/vm.h"
#include "server/base/wall_time.h"

namespace mmud {

VcpuPause::State VcpuPause::Extend(absl::Duration max_duration) {
  mmu::MutexLock control(control_mu_);
  {
    mmu::MutexLock lock(mu_);
    extending_ = true;
  }
  vm_.PauseVcpus();
  mmu::MutexLock lock(mu_);
  extending_ = false;
  const mmu::MonotonicTime now = mmu::MonotonicTime::Now();
  if (!state_.has_value()) state_ = State{now, now, WallTime::Now()};
  state_->expires = std::max(state_->expires, now + max_duration);
  return *state_;
}

void VcpuPause::End() {
  mmu::MutexLock control(control_mu_);
  mmu::MutexLock lock(mu_);
  state_.reset();
  vm_.ResumeVcpus();
}

absl::optional<VcpuPause::State> VcpuPause::Get() const {
  mmu::MutexLock lock(mu_);
  return state_;
}

absl::optional<VcpuPause::State> VcpuPause::EndIfExpired(
    mmu::MonotonicTime now) {
  mmu::MutexLock lock(mu_);
  if (extending_ || !state_.has_value() || now < state_->expires) {
    return absl::nullopt;
  }
  const State ended = *state_;
  state_.reset();
  vm_.ResumeVcpus();
  return ended;
}

}  // namespace mmud
