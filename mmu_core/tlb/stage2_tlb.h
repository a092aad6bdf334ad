// The TLB of a vCPU that runs on arm64 stage-2 tables.
//
// A processor caches two kinds of translations of an IPA (DDI0487, D8.16): what
// stage 2 alone says, and what both stages together say for an address of the
// guest. The guest of this model has stage 1 off, so its addresses are IPAs;
// its accesses use combined entries nevertheless, which do not remember that
// their address was an IPA. So TLBI by IPA does not reach them, and the
// invalidation of stage 1 that KVM issues after it is needed (tlb/tlbi.h).
//
//   access  -> combined entry -> done
//           -> stage-2 entry  -> combined entry -> done
//           -> walk           -> stage-2 entry  -> combined entry -> done
//
// Entries are tagged with the VMID, and know their level. If two live entries
// translate one address at two levels, an access to it finds a TLB conflict
// (D8.16.3).

#ifndef MMU_CORE_TLB_STAGE2_TLB_H_
#define MMU_CORE_TLB_STAGE2_TLB_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/paging/paging_traits.h"
#include "mmu_core/tlb/basic_vcpu_tlb.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_options.h"
#include "mmu_core/tlb/tlb_tag.h"

namespace mmu {

// Externally synchronised by the vCPU: only its thread may call.
template <PagingTraits Traits>
class Stage2Tlb {
 public:
  using Tables = typename BasicVcpuTlb<Traits>::Tables;

  explicit Stage2Tlb(const TlbOptions& options)
      : combined_(options), stage2_(options) {}

  // The VMID that the vCPU runs with from now on.
  void Select(uint16_t vmid) {
    combined_.Select(TlbTag::OfVmid(vmid));
    stage2_.Select(TlbTag::OfVmid(vmid));
  }

  // The combined entry for `page`, or null.
  const TlbEntry* Lookup(PageNumber page) const {
    return combined_.Lookup(page);
  }
  // The stage-2 entry for `page`, or null.
  const TlbEntry* LookupStage2(PageNumber page) const {
    return stage2_.Lookup(page);
  }
  // Whether an access to `page` finds a TLB conflict.
  bool HasConflict(PageNumber page) const {
    return combined_.HasConflict(page) || stage2_.HasConflict(page);
  }

  // The result of a walk.
  void Insert(const TlbEntry& entry) {
    stage2_.Insert(entry);
    combined_.Insert(entry);
  }
  // A combined entry made from a stage-2 entry.
  void InsertCombined(const TlbEntry& entry) { combined_.Insert(entry); }

  // Pointers to tables; null if none are cached.
  Tables* tables() { return stage2_.tables(); }

  void FlushAll() {
    combined_.FlushAll();
    stage2_.FlushAll();
  }
  // Drops what the TLBI instructions for `flush` drop: stage-2 entries of its
  // gfns, and all combined entries, since those that it means are not known.
  void Flush(const TlbFlush& flush) {
    stage2_.Flush(flush, TlbPages::kGuestPhysical);
    combined_.FlushAll();
  }
  // More rights (ARM-07): the vCPU drops the stage-2 entry of `page`, and all
  // combined entries, since the one that it means is not known.
  void FlushPage(PageNumber page) {
    combined_.FlushAll();
    stage2_.FlushPage(page);
  }

  // Drops at most one entry of each kind: a TLB may evict at any time.
  void DropRandom(uint64_t random) {
    combined_.DropRandom(random);
    stage2_.DropRandom(random);
  }

  // For audits: fn(const TlbEntry&) for each entry, of either kind.
  template <typename Fn>
  void ForEach(Fn fn) const {
    combined_.ForEach(fn);
    stage2_.ForEach(fn);
  }

 private:
  BasicVcpuTlb<Traits> combined_;
  BasicVcpuTlb<Traits> stage2_;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_STAGE2_TLB_H_
