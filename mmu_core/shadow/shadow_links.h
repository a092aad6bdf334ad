// The links between shadow pages, and their leafs.
//
//   child    a non-leaf SPTE points at its table; the SPTE is in the child's
//            parent list, and in no rmap (SHD-16).
//   leaf     an SPTE maps memory; it is in the rmap of the gfn and the level,
//            counted in pages_* (SHD-15), and its page records the guest's
//            translation (ShadowPageState::TranslationOf).
//
// Every change of an entry of the shadow MMU goes through this class, which
// keeps these properties. An SPTE is made non-present before it is removed from
// its list, so a reader of a list without mmu_lock may meet a non-present SPTE
// (rmap/rmap.h). The caller decides about flushes and about children without
// parents: see shadow/shadow_zap.h.

#ifndef MMU_CORE_SHADOW_SHADOW_LINKS_H_
#define MMU_CORE_SHADOW_SHADOW_LINKS_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_vm.h"
#include "mmu_core/shadow/unsync_marks.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// The parts of a VM that the shadow MMU uses; all must outlive it.
struct ShadowParts {
  const SpteFormat& format;
  // For pages whose role has ad_disabled (ROLE-08).
  const SpteFormat& format_without_ad;
  ShadowVm& vm;
  MmuTlb tlb;
  MmuCounters& counters;

  const SpteFormat& FormatOf(const ShadowPageState& page) const {
    return page.page->role.ad_disabled() ? format_without_ad : format;
  }
};

// Thread-safe under the locks that the witnesses name. An `SpteSlot` is always
// an entry of a shadow page's table.
class ShadowLinks {
 public:
  // If an rmap has more SPTEs than this before one is added, all are removed
  // (SHD-14).
  static constexpr uint64_t kRmapRecycleThreshold = 1000;

  ShadowLinks(const ShadowParts& parts, UnsyncMarks& unsync)
      : parts_(parts), unsync_(unsync) {}
  ShadowLinks(const ShadowLinks&) = delete;
  ShadowLinks& operator=(const ShadowLinks&) = delete;

  // --- Children. ---

  // Points the SPTE at `child`. The SPTE is not present, or a huge leaf, which
  // is dropped first. Unless `flush` is null, the leaf's range is added to it,
  // and it is issued *before* the SPTE points at the table (SHD-52, SHD-79).
  // Null means that the table maps everything that the leaf did. Takes at most
  // one descriptor from `lists`. REQUIRES: the child's level is one below.
  void LinkChild(const MmuWriteLocked& lock, SpteSlot& sptep,
                 ShadowPageState& child, PteListCache& lists,
                 TlbFlushBatch* flush, MmuCost* cost);
  // Empties the SPTE, which points at a child (checked); returns the child.
  ShadowPageState& UnlinkChild(const MmuWriteLocked& lock, SpteSlot& sptep);
  // Empties all entries that point at `page`.
  void UnlinkParents(const MmuWriteLocked& lock, ShadowPageState& page);

  // --- Leafs. ---

  // Makes the SPTE, which is not present (checked), the present leaf `spte` for
  // `translation`, whose gfn lies in the slot of `rmaps` (which the caller's
  // RCU read section keeps). Takes at most one descriptor from `lists`. True if
  // the rmap had become too long: all of its SPTEs, this one too, are removed,
  // and the TLBs were flushed (SHD-14).
  bool AddLeaf(const MmuWriteLocked& lock, SpteSlot& sptep, Spte spte,
               GuestTranslation translation, SlotRmaps& rmaps,
               PteListCache& lists, MmuCost* cost);
  // Replaces the SPTE, a leaf that maps the same page (checked), by the leaf
  // `spte`; the guest's entries now grant `access`. Returns the replaced value,
  // including bits that the processor set last. The caller flushes RangeOf if
  // SpteFormat::ChangeNeedsFlush says so (SPTE-34).
  Spte ChangeLeaf(const MmuWriteLocked& lock, SpteSlot& sptep, Spte spte,
                  AccessRights access);
  // Empties the SPTE, a leaf (checked), and returns the replaced value,
  // including bits that the processor set last. The caller flushes the RangeOf
  // from before.
  Spte DropLeaf(const MmuWriteLocked& lock, SpteSlot& sptep);
  // Empties all SPTEs of an rmap. The caller flushes. True if there were any.
  bool ZapRmap(const MmuWriteLocked& lock, RmapHead& head);
  // Clears W and MMU-writable in every leaf of at least `min_level` that maps
  // `gfn`; a huge leaf loses them for the whole page (SHD-09). The caller
  // flushes before it drops the lock. True if something changed.
  bool WriteProtectGfn(const MmuWriteLocked& lock, SlotRmaps& rmaps, Gfn gfn,
                       Level min_level);

  // The gfns that the SPTE maps or links: the range to flush if it changes.
  static GfnRange RangeOf(const SpteSlot& sptep);

 private:
  // Empties a present leaf, which stays in its rmap.
  Spte ClearLeaf(SpteSlot& sptep);

  const ShadowParts parts_;
  UnsyncMarks& unsync_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_LINKS_H_
