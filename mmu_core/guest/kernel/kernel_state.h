// What the CPUs of a guest's kernel share.

#ifndef MMU_CORE_GUEST_KERNEL_KERNEL_STATE_H_
#define MMU_CORE_GUEST_KERNEL_KERNEL_STATE_H_

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_lock.h"
#include "mmu_core/guest/kernel/direct_map_memory.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "mmu_core/guest/kernel/guest_process.h"
#include "mmu_core/guest/kernel/kernel_cpu.h"

namespace mmu {

// `lock` guards all that is not const or atomic.
struct KernelState {
  KernelState(GuestCpu& boot_cpu, const GpaSpace& guest_memory,
              const GuestKernelOptions& kernel_options)
      : options(kernel_options),
        space(guest_memory),
        memory(boot_cpu),
        frames(guest_memory) {}

  const GuestKernelOptions options;
  const GpaSpace space;

  GuestLock lock;
  // Of the one shootdown that goes on, by the CPU that holds `lock`: the CPUs
  // that have not done their part yet.
  std::atomic<int> unacknowledged{0};

  // The error with which a CPU left the kernel in the middle of an operation.
  // The guest is lost then, on all CPUs.
  absl::Status failure;
  DirectMapMemory memory;  // the CPU that holds `lock` makes the accesses
  FrameAllocator frames;
  std::map<int, std::unique_ptr<GuestProcess>> processes;
  int next_process = 1;
  std::vector<KernelCpu*> online;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_KERNEL_STATE_H_
