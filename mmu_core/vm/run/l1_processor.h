// A vCPU as an L1 hypervisor uses it (guest/hypervisor/l1_cpu.h): L1's own
// accesses go through the TDP MMU, those of L2 through the shadow pages of L1's
// EPT or NPT. For a VM with MmuMode::kNested.

#ifndef MMU_CORE_VM_RUN_L1_PROCESSOR_H_
#define MMU_CORE_VM_RUN_L1_PROCESSOR_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/vm/run/missing_memory.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class L1Processor final : public L1Cpu {
 public:
  // `vcpu`, of a VM with MmuMode::kNested (checked), outlives this object.
  // `tdp_level` is the host's; a shadow of L1's NPT has as many levels
  // (ROLE-30). `await_ring_room` as for GuestProcessor.
  L1Processor(Vcpu& vcpu, Level tdp_level,
              std::function<bool()> await_ring_room = nullptr,
              MissingMemory missing = MissingMemory::kDevice);

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override;
  void InveptSingleContext(Gpa root) override;
  void InveptGlobal() override;
  void FlushAsid() override;
  void EnterL2(const NestedPaging& paging) override;
  Outcome L2Access(Gpa nested_gpa, int size_bytes, AccessKind kind,
                   uint64_t* word, NestedExit* exit) override;
  void LeaveL2() override { in_l2_ = false; }
  absl::Status status() const override { return status_; }

 private:
  // True if the ring has room now: try again.
  bool AwaitRingRoom();

  Vcpu& vcpu_;
  const Level tdp_level_;
  const std::function<bool()> await_ring_room_;
  const MissingMemory missing_;
  NestedPaging paging_;
  bool in_l2_ = false;
  bool flush_asid_ = false;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_L1_PROCESSOR_H_
