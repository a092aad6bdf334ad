#include "mmu_core/tlb/vcpu_gate.h"

#include <cstdint>

#include "mmu_core/sync/spin.h"

namespace mmu {

void VcpuGate::WaitForChange(uint64_t seen) const {
  Backoff backoff;
  while (sequence_.load(kBarrierAcquire) == seen) backoff.Pause();
}

}  // namespace mmu
