#include "mmu_core/guest/hypervisor/l1_shootdown.h"

namespace mmu {

L1Shootdown::L1Shootdown(int cpus, int guests)
    : running_(At(cpus)), asked_(At(guests)), done_(At(cpus) * At(guests)) {
  for (std::atomic<int>& guest : running_) guest.store(kNone);
}

bool L1Shootdown::IsDone(int cpu, int guest, uint64_t generation) const {
  for (size_t other = 0; other < running_.size(); ++other) {
    const int index = static_cast<int>(other);
    if (index == cpu || running_[other].load() != guest) continue;
    if (DoneAt(index, guest).load() < generation) return false;
  }
  return true;
}

}  // namespace mmu
