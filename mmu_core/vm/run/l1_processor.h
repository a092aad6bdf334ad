// A vCPU as an L1 hypervisor uses it (guest/hypervisor/l1_cpu.h): L1's own
// accesses go through the TDP MMU, those of L2 through the shadow pages of L1's
// EPT or NPT. For a VM with MmuMode::kNested.
//
// The TLB of the shadow MMU holds the guest-physical mappings, and this object
// the combined ones (guest/hypervisor/combined_mappings.h).

#ifndef MMU_CORE_VM_RUN_L1_PROCESSOR_H_
#define MMU_CORE_VM_RUN_L1_PROCESSOR_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/combined_mappings.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/vm/run/missing_memory.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Of entries of L2 with another table of L1 than before (SHD-54).
struct L1ProcessorStats {
  uint64_t kept_roots = 0;    // the vCPU had kept the root
  uint64_t missed_roots = 0;  // a root has to be loaded
};

// Externally synchronised: belongs to the vCPU's thread.
class L1Processor final : public L1Cpu {
 public:
  // `vcpu`, of a VM with MmuMode::kNested (checked), outlives this object.
  // `tdp_level` is the host's; a shadow of L1's NPT has as many levels
  // (ROLE-30). `await_ring_room` as for GuestProcessor. `pause` is called where
  // L1 waits for another processor: it lets the host's other threads run, and
  // parks the vCPU if that is asked for. Without it the thread only yields.
  // `combined`: how long combined mappings stay.
  L1Processor(Vcpu& vcpu, Level tdp_level,
              std::function<bool()> await_ring_room = nullptr,
              MissingMemory missing = MissingMemory::kDevice,
              std::function<void()> pause = nullptr,
              const TlbOptions& combined = {});

  bool Access(Gpa gpa, int size_bytes, AccessKind kind,
              uint64_t* word) override;
  void Pause() override;
  void InveptSingleContext(Gpa root) override;
  void InveptGlobal() override;
  void InvalidateVpid(Invvpid what, uint32_t vpid, Gva gva) override;
  void FlushAsid() override;
  void EnterL2(const NestedPaging& paging) override;
  Outcome L2Access(const NestedAccess& access, uint64_t* word,
                   NestedExit* exit) override;
  CombinedMappings& combined() override { return combined_; }
  void LeaveL2() override { in_l2_ = false; }
  absl::Status status() const override { return status_; }

  const L1ProcessorStats& stats() const { return stats_; }

 private:
  // The tables from which the processor translates for L2.
  GuestRoot RootOf(const NestedPaging& paging);
  // True if the ring has room now: try again.
  bool AwaitRingRoom();

  Vcpu& vcpu_;
  const Level tdp_level_;
  const std::function<bool()> await_ring_room_;
  const MissingMemory missing_;
  const std::function<void()> pause_;
  CombinedMappings combined_;
  NestedPaging paging_;
  std::optional<Gpa> entered_;  // the last table of L1
  bool in_l2_ = false;
  bool flush_asid_ = false;
  absl::Status status_;
  L1ProcessorStats stats_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_L1_PROCESSOR_H_
