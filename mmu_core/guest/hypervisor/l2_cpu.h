// A virtual processor for the kernel of an L2 guest that pages by itself. It
// translates an address of L2 in two dimensions:
//
//   linear address --[L2's tables, in L2's memory]--> nested gpa
//        each entry: nested gpa --[L1's EPT or NPT]--> gpa of L1
//   nested gpa --[L1's EPT or NPT]--> gpa of L1
//
// Each access to an entry of L2's tables is an access of L2 that may exit to
// L1, which maps the table; then the instruction begins anew. It needs the
// right to read. It also needs the right to write if the walk sets a bit in the
// entry, and in any case with EPT's Accessed and Dirty bits or with NPT (SDM
// vol. 3, 29.3.5; APM vol. 2, 15.25.5).
//
// The processor that runs it caches what the walk of L2's tables finds
// (combined_mappings.h), and looks at these tables again only
//   - after L2 has invalidated the page or PCID, or L1 the VPID, ASID or EP4TA,
//   - after a page fault of L2 at the page, or an exit of L1 at its nested gpa,
//   - for a write, if the entry's Dirty bit was not set.
// A cached right that is missing makes a page fault, whatever the tables grant
// by now (SDM vol. 3, 4.10.2.3).

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/hypervisor/combined_mappings.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l1_shared.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu {

// Thread-compatible, like the `l1` that runs it.
class L2Cpu final : public GuestCpu {
 public:
  // The only virtual processor of guest `guest`. `l1` is booted, outlives this
  // object and may run other guests in between.
  L2Cpu(L1Hypervisor& l1, int guest) : l1_(&l1), vcpu_{.guest = guest} {}

  // Runs on another processor of the same hypervisor from now on, that of `l1`.
  // Called by the thread of the processor that it leaves, which also makes the
  // thread of the other one see what this object did before.
  void MoveTo(L1Hypervisor& l1) {
    l1_->Rest();
    l1_ = &l1;
  }

  // 8 bytes only. kError: L1 cannot serve the access, see status().
  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override;
  // Tables with entries of 8 bytes and four or five levels only.
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override;
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override;
  void Invlpg(Gva gva) override;
  void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) override;
  // The guest has no other processor to wait for.
  bool Relax() override { return true; }
  absl::Status status() const override { return status_; }

 private:
  // Where L2's tables, or their cached translation, lead.
  struct Translation {
    L1Cpu::Outcome outcome = L1Cpu::Outcome::kDone;
    Gfn nested = {};                       // of the page, with kDone
    std::optional<GuestFault> fault = {};  // or L2's page fault, with kDone
  };
  Translation Translate(L1Cpu& cpu, LinearAddress at,
                        const GuestPageAccess& access, NestedExit* exit) const;
  // Tries the access once. kDone: it happened, or L2 has the page fault
  // `*fault`.
  L1Cpu::Outcome TryAccess(L1Cpu& cpu, Gva gva, const GuestPageAccess& access,
                           uint64_t* word, std::optional<GuestFault>* fault,
                           NestedExit* exit);

  L1Hypervisor* l1_;
  L2Vcpu vcpu_;
  GuestWalker walker_;  // of a processor with paging off, at first
  GuestRoot root_;      // CR3
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_
