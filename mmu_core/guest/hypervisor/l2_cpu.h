// A processor for the kernel of an L2 guest that pages by itself. It translates
// an address of L2 in two dimensions:
//
//   linear address --[L2's tables, in L2's memory]--> nested gpa
//        each entry: nested gpa --[L1's EPT or NPT]--> gpa of L1
//   nested gpa --[L1's EPT or NPT]--> gpa of L1
//
// Each access to an entry of L2's tables is an access of L2 that may exit to
// L1, which maps the table and lets L2 try again. It needs the right to read.
// It also needs the right to write if the walk sets a bit in the entry, and in
// any case with EPT's Accessed and Dirty bits or with NPT (SDM vol. 3, 29.3.5;
// APM vol. 2, 15.25.5).
//
// This processor keeps no translation of L2's own tables from one access to the
// next, as a processor may do. So every access walks both dimensions, and
// INVLPG and loads of CR3 have nothing to invalidate.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_

#include <cstdint>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/guest_words.h"

namespace mmu {

// Thread-compatible, like `l1`.
class L2Cpu final : public GuestCpu {
 public:
  // Runs guest `guest` of `l1`, which runs on this processor only. `l1` is
  // booted, outlives this object and may run other guests in between.
  L2Cpu(L1Hypervisor& l1, int guest) : l1_(l1), guest_(guest), words_(*this) {}

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
  // The entries of L2's tables, as the processor's walk accesses them.
  class Words final : public GuestWords {
   public:
    explicit Words(L2Cpu& cpu) : cpu_(cpu) {}
    GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override;
    // Not one step on the bus: no other processor runs this guest.
    GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                    uint64_t desired) override;

   private:
    L2Cpu& cpu_;
  };

  bool AccessNested(Gpa nested, AccessKind kind, NestedTarget target,
                    uint64_t* word);

  L1Hypervisor& l1_;
  const int guest_;
  Words words_;
  GuestWalker walker_;  // of a processor with paging off, at first
  GuestRoot root_;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_CPU_H_
