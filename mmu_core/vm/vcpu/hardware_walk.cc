#include "mmu_core/vm/vcpu/hardware_walk.h"

#include "mmu_core/base/hooks.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {
namespace {

// A second stage: an entry on the way only has to be present; the leaf decides
// which accesses are allowed.
class SecondStagePolicy {
 public:
  SecondStagePolicy(const SpteFormat& format, AccessKind kind, PmlBuffer* pml)
      : format_(format), kind_(kind), pml_(pml) {}

  // An upper entry of a second stage denies nothing by itself.
  void BeginWith(AccessRights) {}
  AccessRights rights() const { return kAllRights; }
  bool Enter(Spte spte) { return format_.Allows(spte, AccessKind::kRead); }
  bool Permits(Spte leaf) const { return format_.Allows(leaf, kind_); }
  AccessKind kind() const { return kind_; }
  bool HasRoomInLog() const { return pml_ == nullptr || !pml_->full(); }
  void NoteInLog(PageNumber page) {
    if (pml_ == nullptr) return;
    // The guest's write follows. If another thread clears D in between, the
    // page is only logged once more than needed.
    pml_->Log(ToGpa(Gfn(page.value())));
    AtHook(HookPoint::kLogToDrain);
  }
  bool Describe(const SpteSlot&, Spte leaf, TlbEntry& entry) const {
    entry.gfn = Gfn(entry.base_page.value());
    entry.writable = leaf.IsWritable();
    entry.executable = format_.IsExecutable(leaf);
    return true;
  }

 private:
  const SpteFormat& format_;
  const AccessKind kind_;
  PmlBuffer* const pml_;
};

}  // namespace

WalkResult HardwareWalk(const SpteFormat& format, const MmioFormat& mmio,
                        const HostMemory& memory, const TdpRoot& root, Gfn gfn,
                        AccessKind kind, PmlBuffer* pml,
                        PagingStructureCache* cache) {
  return WalkTables({.format = format,
                     .mmio = mmio,
                     .memory = memory,
                     .top = root.table(),
                     .level = root.level(),
                     .root_id = root.id(),
                     .cache = cache},
                    ToPageNumber(gfn), SecondStagePolicy(format, kind, pml));
}

}  // namespace mmu
