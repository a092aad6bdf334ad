// The time that a CPU spends in the kernel, with the kernel's lock.

#ifndef MMU_CORE_GUEST_KERNEL_KERNEL_SECTION_H_
#define MMU_CORE_GUEST_KERNEL_KERNEL_SECTION_H_

#include "absl/status/status.h"
#include "mmu_core/guest/kernel/guest_kernel.h"

namespace mmu {

// Between construction and destruction the CPU holds the lock, and makes the
// accesses of the kernel. If status() is an error it does not: the guest is to
// stop, or it is lost. Meanwhile another CPU may wait for this one, which
// therefore takes its interrupts while it waits for the lock.
class GuestKernel::Section {
 public:
  explicit Section(GuestKernel& kernel) : state_(*kernel.state_) {
    KernelCpu& cpu = kernel.cpu_;
    while (!state_.lock.TryLock()) {
      cpu.TakeInterrupts();
      if (cpu.cpu().Relax()) continue;
      status_ = cpu.cpu().status();
      return;
    }
    held_ = true;
    // The holder before may have interrupted this CPU without waiting for it,
    // if the guest is lost.
    cpu.TakeInterrupts();
    state_.memory.RunOn(cpu.cpu());
    status_ = state_.failure;
    if (status_.ok()) status_ = state_.memory.status();
  }
  ~Section() {
    if (held_) state_.lock.Unlock();
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  const absl::Status& status() const { return status_; }

 private:
  KernelState& state_;
  bool held_ = false;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_KERNEL_SECTION_H_
