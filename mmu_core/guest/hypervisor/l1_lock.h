// The lock of an L1 hypervisor that runs on several processors.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L1_LOCK_H_
#define MMU_CORE_GUEST_HYPERVISOR_L1_LOCK_H_

#include <atomic>

namespace mmu {

// A lock of the guest, not of the host: its owner makes accesses that the host
// may hold back or park for as long as it likes. So a processor that wants it
// never blocks its host thread. It tries again, with L1Cpu::Pause in between,
// where it can be parked too. Thread-safe.
class L1Lock {
 public:
  bool TryLock() { return !locked_.exchange(true, std::memory_order_acquire); }
  void Unlock() { locked_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> locked_{false};
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L1_LOCK_H_
