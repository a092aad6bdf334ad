#include "mmu_core/tlb/vcpu_gate.h"

#include <chrono>
#include <cstdint>
#include <thread>

#include "mmu_core/sync/spin.h"

namespace mmu {

// An access section lasts nanoseconds unless the vCPU's thread has lost its
// processor in the middle of it, so: spin for about a microsecond, then give
// this processor away, and only then sleep, since waking up takes far longer
// than the section that is waited for.
void VcpuGate::WaitForChange(uint64_t seen) const {
  constexpr int kSpins = 64;
  constexpr int kYields = 256;
  constexpr auto kNap = std::chrono::microseconds(20);
  for (int round = 0; sequence_.load(kBarrierAcquire) == seen; ++round) {
    if (round < kSpins) {
      CpuRelax();
    } else if (round < kSpins + kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
  }
}

}  // namespace mmu
