// A vCPU as its guest's kernel uses it (guest/kernel/guest_cpu.h): control
// registers, CR3, INVLPG, and accesses by virtual address. For a VM whose
// guests have no second-stage translation (MmuMode::kShadow).

#ifndef MMU_CORE_VM_RUN_GUEST_PROCESSOR_H_
#define MMU_CORE_VM_RUN_GUEST_PROCESSOR_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/vm/run/missing_memory.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu {

// Externally synchronised: belongs to the vCPU's thread.
class GuestProcessor final : public GuestCpu {
 public:
  // `vcpu`, of a VM with MmuMode::kShadow (checked), has paging off and
  // outlives this. `await_ring_room` is called when the vCPU's dirty ring is
  // full; it returns true when there is room, false if the guest is to stop.
  explicit GuestProcessor(Vcpu& vcpu,
                          std::function<bool()> await_ring_room = nullptr,
                          MissingMemory missing = MissingMemory::kDevice);

  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override;
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override;
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override;
  void Invlpg(Gva gva) override;
  void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) override;
  // Parks if the vCPU is asked to, else lets other threads run.
  bool Relax() override;
  absl::Status status() const override { return status_; }

  // CR0, CR4 and EFER, all at once; takes effect at once (ROLE-02).
  void SetControlRegisters(const GuestPagingState& state);
  const GuestPagingState& control_registers() const { return state_; }

 private:
  GuestRoot RootAt(Gpa cr3);
  // Makes one access above 4 GiB, which the processor cannot reach without
  // paging: the loader of the kernel writes this memory.
  Outcome AccessForLoader(Gpa gpa, int size_bytes, AccessKind kind,
                          uint64_t* word);
  // False: the guest must stop, as status() says.
  bool AwaitRingRoom();

  Vcpu& vcpu_;
  const std::function<bool()> await_ring_room_;
  const MissingMemory missing_;
  GuestPagingState state_;
  Gpa cr3_;
  Pcid pcid_ = 0;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_GUEST_PROCESSOR_H_
