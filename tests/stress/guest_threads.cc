#include "tests/stress/guest_threads.h"

#include <chrono>

#include "mmu_core/stats/vcpu_stats.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::stress {

GuestThreads::GuestThreads(Vm& vm)
    : vm_(vm), vcpus_(static_cast<int>(vm.state().vcpus.size())) {}

void GuestThreads::Start() {
  for (int i = 0; i < vcpus_; ++i) {
    threads_.emplace_back([this, i] {
      Run(i);
      const std::lock_guard<std::mutex> lock(mu_);
      ++ended_;
      changed_.notify_all();
    });
  }
}

void GuestThreads::Stop() {
  stop_.store(true);
  Resume();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void GuestThreads::Outside(Vcpu& vcpu, absl::FunctionRef<void()> wait) {
  const bool was_in_guest = vcpu.gate().in_guest();
  if (was_in_guest) vcpu.ExitGuest();
  wait();
  if (was_in_guest) vcpu.EnterGuest();
}

void GuestThreads::StandStillOutside(Vcpu& vcpu) {
  if (pausing()) Outside(vcpu, [this] { WaitWhilePaused(); });
}

void GuestThreads::WaitOutside(Vcpu& vcpu) {
  Outside(vcpu, [this] { WaitALittle(); });
}

bool GuestThreads::AwaitRingRoom(Vcpu& vcpu) {
  CountRingFull();
  Outside(vcpu, [&] {
    const WaitTime::Scope waits(vcpu.stats().ring_full_wait);
    while (vcpu.dirty_ring()->SoftFull()) {
      // At the end of the round no other thread empties the rings.
      if (stopping()) {
        HarvestDirtyRings(vm_.state());
        static_cast<void>(ResetDirtyRings(
            vm_.state(), [] { return false; }, nullptr));
      }
      WaitALittle();
    }
  });
  return true;
}

bool GuestThreads::ForgetsUnasked() const {
  const TlbOptions& tlb = vm_.config().tlb;
  return tlb.flushes == TlbOptions::Flushes::kWhole ||
         tlb.evictions == TlbOptions::Evictions::kRandom;
}

void GuestThreads::FlushUnasked(Vcpu& vcpu) const {
  if (!ForgetsUnasked()) return;
  vcpu.tlb().FlushAll();
  if (vcpu.shadow() != nullptr) vcpu.shadow()->tlb().FlushAll();
  if (vcpu.stage2() != nullptr) vcpu.stage2()->FlushAll();
}

void GuestThreads::ReleaseRootUnasked(Vcpu& vcpu) const {
  if (ForgetsUnasked()) vcpu.ReleaseRoot();
}

Vcpu& GuestThreads::VcpuAt(int index) { return *vm_.state().vcpus[index]; }

void GuestThreads::Pause() {
  pause_.store(true);
  std::unique_lock<std::mutex> lock(mu_);
  changed_.wait(lock, [this] { return parked_ + ended_ == vcpus_; });
}

void GuestThreads::Resume() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    pause_.store(false);
  }
  changed_.notify_all();
}

std::string GuestThreads::violation() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return violation_;
}

void GuestThreads::Report(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (violation_.empty()) violation_ = text;
}

void GuestThreads::WaitWhilePaused() {
  std::unique_lock<std::mutex> lock(mu_);
  ++parked_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !pause_.load() || stop_.load(); });
  --parked_;
}

void GuestThreads::WaitALittle() {
  if (pausing()) return WaitWhilePaused();
  std::this_thread::sleep_for(std::chrono::microseconds(50));
}

}  // namespace mmu::stress
