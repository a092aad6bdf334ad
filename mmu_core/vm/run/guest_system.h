// The guest that runs on one vCPU of a VM whose guests have page tables of
// their own: a kernel with programs (MmuMode::kShadow), or a hypervisor with an
// L2 guest (kNested). A workload's accesses are made by its programs.
//
// It lives as long as the VM, from the first workload on: page tables and
// programs stay where they are between workloads. Each vCPU has a guest of its
// own, in its share of the VM's memory.

#ifndef MMU_CORE_VM_RUN_GUEST_SYSTEM_H_
#define MMU_CORE_VM_RUN_GUEST_SYSTEM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/virtual_workload.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class GuestSystem {
 public:
  // Waits for room in the vCPU's dirty ring. False: the guest is to stop.
  using AwaitRingRoom = std::function<bool()>;

  // `memory` is what the guest may use. Errors: as KernelProgram::Start, or the
  // hypervisor's.
  static absl::StatusOr<std::unique_ptr<GuestSystem>> Boot(
      const VmConfig& config, Vcpu& vcpu, const GpaSpace& memory,
      const AwaitRingRoom& await);

  // One access of a workload; see VirtualWorkload. Once it failed the guest is
  // lost: in the middle of what it did.
  absl::Status Access(const GuestAccess& access, uint64_t* word);
  // What it failed with, in the middle of what it did; OK while it can go on.
  const absl::Status& lost() const { return lost_; }
  // Reads all that was ever written, if the guest checks reads.
  absl::Status Verify() { return workload_->Verify(); }

 private:
  GuestSystem() = default;

  std::unique_ptr<GuestCpu> processor_;  // of a kernel,
  std::unique_ptr<L1Cpu> l1_processor_;  // or of a hypervisor
  std::unique_ptr<VirtualWorkload> workload_;
  absl::Status lost_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_GUEST_SYSTEM_H_
