// The interface to the vCPUs' threads for parts of a VM that know no vCPU.

#ifndef MMU_CORE_VM_CORE_VCPU_RUNNER_H_
#define MMU_CORE_VM_CORE_VCPU_RUNNER_H_

#include "mmu_core/base/gfn_range.h"

namespace mmu {

// Thread-safe.
class VcpuRunner {
 public:
  virtual ~VcpuRunner() = default;

  // On return no vCPU is inside an access, and none begins one before the
  // matching Unhold. Holds nest. Not to be called under slots_lock or in an RCU
  // read section: a vCPU may wait for either in the middle of an access.
  virtual void Hold() = 0;
  virtual void Unhold() = 0;

  // Called when dirty rings were emptied: vCPUs that wait for room check again.
  virtual void DirtyRingsHaveRoom() = 0;

  // Called before the VM takes `range` of address space 0 away. A guest with
  // its own page tables in that memory is lost: any error of it from now on is
  // reported as GUEST_LOST. May be called under slots_lock.
  virtual void MemoryGoes(GfnRange range) = 0;
};

// Holds all vCPUs while it exists, so that no page becomes dirty. May be made
// only where Hold may be called.
class HeldVcpus {
 public:
  explicit HeldVcpus(VcpuRunner& runner) : runner_(&runner) { runner.Hold(); }
  ~HeldVcpus() { LetGo(); }
  HeldVcpus(const HeldVcpus&) = delete;
  HeldVcpus& operator=(const HeldVcpus&) = delete;

  // Ends the hold.
  void LetGo() {
    if (runner_ != nullptr) runner_->Unhold();
    runner_ = nullptr;
  }

 private:
  VcpuRunner* runner_;  // null once the hold ended
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VCPU_RUNNER_H_
