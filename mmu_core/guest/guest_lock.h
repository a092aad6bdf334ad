// The lock of a guest's kernel, or of an L1 hypervisor: a spinning lock in the
// guest.

#ifndef MMU_CORE_GUEST_GUEST_LOCK_H_
#define MMU_CORE_GUEST_GUEST_LOCK_H_

#include <atomic>

namespace mmu {

// No lock of the host: its holder makes accesses, and may stand still in the
// middle of one as long as the host likes. So there is no blocking Lock. A CPU
// that waits calls TryLock in a loop, and between two calls it answers
// interrupts and relaxes (GuestCpu::Relax, L1Cpu::Pause), where it can stand
// still too.
// Thread-safe.
class GuestLock {
 public:
  // What the holders before did is visible to the caller if it returns true.
  bool TryLock() {
    return !held_.load(std::memory_order_relaxed) &&
           !held_.exchange(true, std::memory_order_acquire);
  }
  void Unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_GUEST_LOCK_H_
