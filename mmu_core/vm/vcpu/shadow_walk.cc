#include "mmu_core/vm/vcpu/shadow_walk.h"

#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {
namespace {

// Shadow tables: the rights are those that all entries on the way grant
// together.
class ShadowPolicy {
 public:
  ShadowPolicy(const ShadowWalkParts& parts, const GuestPageAccess& access)
      : parts_(parts), access_(access) {}

  void BeginWith(AccessRights rights) { rights_ = rights; }
  AccessRights rights() const { return rights_; }
  bool Enter(Spte spte) {
    if (!spte.IsPresent()) return false;
    const AccessRights own = parts_.format.RightsOf(spte);
    // An entry that grants nothing is not present for the hardware.
    if (!own.Has(kMayRead) && !own.Has(kMayExec)) return false;
    rights_ = rights_ & own;
    return true;
  }
  bool Permits(Spte) const {
    return !parts_.permissions.Denies(access_, rights_);
  }
  AccessKind kind() const { return access_.kind; }
  // No CPU's own log records pages of shadow tables (DL-33).
  bool HasRoomInLog() const { return true; }
  void NoteInLog(PageNumber) {}
  bool Describe(const SpteSlot& slot, Spte leaf, TlbEntry& entry) const {
    const ShadowPageState& page = PageHolding(slot);
    entry.gfn = page.TranslationOf(IndexInTable(slot)).gfn;
    entry.writable = rights_.Has(kMayWrite);
    entry.executable = rights_.Has(kMayExec);
    entry.rights = rights_;
    // GuestTranslations says why this look makes the gfn that of the leaf.
    const Spte now = slot.Load();
    return now.IsPresentLeaf(page.level()) && now.pfn() == leaf.pfn();
  }

 private:
  const ShadowWalkParts& parts_;
  const GuestPageAccess& access_;
  AccessRights rights_ = kAllRights;
};

}  // namespace

WalkResult ShadowWalk(const ShadowWalkParts& parts, const ShadowRoots& roots,
                      PageNumber page, const GuestPageAccess& access,
                      PagingStructureCache* cache) {
  return WalkTables({.format = parts.format,
                     .mmio = parts.mmio,
                     .memory = parts.memory,
                     .top = roots.table(),
                     .level = roots.level(),
                     .root_id = roots.id(),
                     .cache = cache},
                    page, ShadowPolicy(parts, access));
}

}  // namespace mmu
