// What parts of a VM that know no vCPU may ask of the threads that run them.

#ifndef MMU_CORE_VM_CORE_VCPU_RUNNER_H_
#define MMU_CORE_VM_CORE_VCPU_RUNNER_H_

#include "mmu_core/base/gfn_range.h"

namespace mmu {

// Thread-safe.
class VcpuRunner {
 public:
  virtual ~VcpuRunner() = default;

  // When it returns no vCPU is inside an access, and none begins one before the
  // matching Unhold. Holds nest. Not to be called under slots_lock, nor in an
  // RCU read section: a vCPU may wait for either in the middle of an access.
  virtual void Hold() = 0;
  virtual void Unhold() = 0;

  // Dirty rings were emptied: vCPUs that wait for room look again.
  virtual void DirtyRingsHaveRoom() = 0;

  // The VM is about to take `range` of address space 0 away. A guest with page
  // tables of its own in that memory is lost: whatever it fails with from now
  // on is reported as GUEST_LOST. May be called under slots_lock.
  virtual void MemoryGoes(GfnRange range) = 0;
};

// Holds all vCPUs while it exists, so that no page becomes dirty. Where Hold
// may not be called this may not be made.
class HeldVcpus {
 public:
  explicit HeldVcpus(VcpuRunner& runner) : runner_(&runner) { runner.Hold(); }
  ~HeldVcpus() { LetGo(); }
  HeldVcpus(const HeldVcpus&) = delete;
  HeldVcpus& operator=(const HeldVcpus&) = delete;

  // The vCPUs may go on now.
  void LetGo() {
    if (runner_ != nullptr) runner_->Unhold();
    runner_ = nullptr;
  }

 private:
  VcpuRunner* runner_;  // null once the vCPUs were let go of
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_VCPU_RUNNER_H_
