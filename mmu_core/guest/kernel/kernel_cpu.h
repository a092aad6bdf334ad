// One CPU of a guest's kernel: the address space that it runs, the PCIDs under
// which it has cached others, and the interrupts that other CPUs send to it.

#ifndef MMU_CORE_GUEST_KERNEL_KERNEL_CPU_H_
#define MMU_CORE_GUEST_KERNEL_KERNEL_CPU_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/guest_process.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest/kernel/tlb_invalidation.h"

namespace mmu {

struct KernelCpuStats {
  uint64_t invlpgs = 0;
  uint64_t invpcids = 0;
  uint64_t flushes = 0;     // loads of CR3 that drop translations
  uint64_t interrupts = 0;  // taken
};

// The CPU has few PCIDs, numbered from 1, and gives the next one to each
// address space that it runs. When all are used, it begins anew with number 1,
// and INVPCID drops all contexts. So a PCID never has translations of an
// address space that had it before. Without PCIDs the CPU uses number 0, and
// each load of CR3 drops everything.
//
// A CPU learns of stale translations in two ways:
//   - It runs the address space: it gets an interrupt.
//   - It only has the address space in its caches: it gets an interrupt as well
//     (Cached::kInterrupt), or it compares generations when it runs the address
//     space next, and then drops all of its translations (kCompare).
//
// What is not marked thread-safe belongs to the CPU's thread. Functions that
// say so need the kernel's lock, too: others read the result under it.
class KernelCpu {
 public:
  static constexpr Pcid kPcids = 4;

  KernelCpu(GuestCpu& cpu, const PagingGeometry& geometry)
      : cpu_(cpu), geometry_(geometry) {}
  KernelCpu(const KernelCpu&) = delete;
  KernelCpu& operator=(const KernelCpu&) = delete;

  GuestCpu& cpu() { return cpu_; }
  // The process that runs here; 0: none, the CPU is offline. Written under the
  // kernel's lock, and read by the CPU itself or under that lock.
  int running() const { return running_; }

  // --- Under the kernel's lock ---

  // Switches paging on, in the address space of `process`.
  void Start(const GuestProcess& process);
  // Loads the address space of `process`. kKeep: keeps its translations if none
  // of them can be stale.
  void Run(const GuestProcess& process, Cr3Load how);
  // Goes offline: from now on the CPU gets no interrupts, and has to Start
  // again.
  void Stop();
  // Whether PDPTEs of the running process, `process`, have appeared since the
  // CPU loaded them.
  bool HasOldPdptes(const GuestProcess& process) const {
    return geometry_.LoadsPdptes() &&
           loaded_pdptes_ != process.tables.pdpte_changes();
  }
  // Whether the CPU may have cached translations of `process`. By any CPU.
  bool HasCached(int process) const;

  // --- Invalidations ---

  // Invalidates here. `tlb_gen` is the generation of the process after the
  // change.
  void Invalidate(const GuestProcess& process, const TlbInvalidation& what);
  // Asks the CPU to do the same. It subtracts 1 from `*unacknowledged` when it
  // has done so. By any CPU under the kernel's lock, while this one is online.
  void Interrupt(const GuestProcess& process, const TlbInvalidation& what,
                 std::atomic<int>* unacknowledged);
  // Does what other CPUs asked for. Called between two accesses.
  void TakeInterrupts() {
    if (interrupted_.load(std::memory_order_relaxed)) TakeThem();
  }

  const KernelCpuStats& stats() const { return stats_; }

 private:
  // The address space of one PCID.
  struct Context {
    int process = 0;
    uint64_t tlb_gen = 0;  // of the cached translations
    Gpa root;
  };
  struct Request {
    int process = 0;
    uint64_t tlb_gen = 0;
    TlbInvalidation what;
    std::atomic<int>* unacknowledged = nullptr;
  };

  Pcid FirstPcid() const { return geometry_.HasPcids() ? 1 : 0; }
  void LoadCr3(const Context& context, Pcid pcid, Cr3Load how);
  void Invalidate(int process, uint64_t tlb_gen, const TlbInvalidation& what);
  void TakeThem();

  GuestCpu& cpu_;
  const PagingGeometry geometry_;
  int running_ = 0;
  // In the order of PCIDs. `process` changes under the kernel's lock only.
  std::vector<Context> contexts_;
  uint64_t loaded_pdptes_ = 0;
  KernelCpuStats stats_;

  std::atomic<bool> interrupted_{false};
  Mutex mu_;  // held for a look at the requests only
  std::vector<Request> requests_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_KERNEL_KERNEL_CPU_H_
