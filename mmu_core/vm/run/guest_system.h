// The guest on one vCPU of a VM whose guests have their own page tables: a
// kernel with programs (MmuMode::kShadow), or a hypervisor with an L2 guest
// (kNested). Its programs make a workload's accesses.
//
// The guest lives from the first workload until the VM's end: page tables and
// programs stay in place between workloads. Each vCPU has its own guest, in its
// share of the VM's memory.

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
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Whether guests that have page tables of their own can keep them in the VM's
// memory: FAILED_PRECONDITION NO_CONTENTS if a memslot has none. OK for other
// guests.
absl::Status CheckGuestMemory(const VmCore& vm);

// Externally synchronised: belongs to the vCPU's thread.
class GuestSystem {
 public:
  // Waits for room in the vCPU's dirty ring. False: the guest must stop.
  using AwaitRingRoom = std::function<bool()>;

  // The guest may use `memory`. Errors of KernelProgram::Start or of the
  // hypervisor.
  static absl::StatusOr<std::unique_ptr<GuestSystem>> Boot(
      const VmConfig& config, Vcpu& vcpu, const GpaSpace& memory,
      const AwaitRingRoom& await);

  // Makes one access of a workload; see VirtualWorkload. After a failure the
  // guest is lost: it stopped in the middle of an operation.
  absl::Status Access(const GuestAccess& access, uint64_t* word);
  // The error with which the guest was lost; OK while it can continue.
  const absl::Status& lost() const { return lost_; }
  // Reads everything ever written, if the guest checks reads.
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
