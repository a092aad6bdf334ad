#include "mmu_core/tlb/vcpu_gate.h"

#include <cstdint>

#include "mmu_core/sync/spin.h"

namespace mmu {

void VcpuGate::WaitForChange(const std::atomic<uint64_t>& counter,
                             uint64_t seen) {
  Backoff backoff;
  while (counter.load(kBarrierAcquire) == seen) backoff.Pause();
}

}  // namespace mmu
