#include "mmu_core/vm/vcpu/shadow_walk.h"

#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {
namespace {

// The hardware grants nothing at all: to it, the entry is not there.
bool GrantsNothing(AccessRights rights) {
  return !rights.Has(kMayRead) && !rights.Has(kMayExec);
}

}  // namespace

ShadowWalkResult ShadowWalk(const ShadowWalkParts& parts,
                            const ShadowRoots& roots, uint64_t address,
                            const GuestPageAccess& access) {
  const SpteFormat& format = parts.format;
  const Gfn page(address >> kPageShift);
  ShadowWalkResult walk;
  WalkResult& result = walk.result;
  RcuReadGuard rcu;  // as in HardwareWalk
  for (;;) {
    PageTable* table = roots.table();
    Level level = roots.level();
    AccessRights rights = kAllRights;
    SpteSlot* slot;
    Spte spte;
    for (;;) {
      slot = &table->entries[IndexOf(page, level)];
      spte = slot->Load();
      if (!spte.IsPresent()) {
        const bool mmio = parts.mmio.IsMmio(spte);
        result.kind =
            mmio ? WalkResult::Kind::kReserved : WalkResult::Kind::kNotPresent;
        if (mmio) walk.mmio = spte;
        return walk;
      }
      const AccessRights own = format.RightsOf(spte);
      if (GrantsNothing(own)) {
        result.kind = WalkResult::Kind::kNotPresent;
        return walk;
      }
      rights = rights & own;
      if (spte.IsLeaf(level)) break;
      table = TableOf(spte);
      level = ChildOf(level);
      AtHook(HookPoint::kWalkToTable);
    }
    if (parts.permissions.Denies(access, rights)) {
      result.kind = WalkResult::Kind::kNotAllowed;
      return walk;
    }
    Spte assisted = spte;
    if (format.has_ad()) {
      assisted = format.WithAccessed(spte);
      if (access.kind == AccessKind::kWrite) {
        assisted = format.WithDirty(assisted);
      }
    }
    if (assisted != spte && !slot->CompareExchange(spte, assisted)) continue;
    result.kind = WalkResult::Kind::kTranslated;
    result.entry = {
        .base_gfn = RoundDown(page, level),
        .pfn = assisted.pfn(),
        .host = parts.memory.PointerTo(assisted.pfn()),
        .root_id = roots.id(),
        .level = level,
        .writable = rights.Has(kMayWrite),
        .executable = rights.Has(kMayExec),
        .dirty_set = !format.has_ad() || format.IsDirty(assisted),
        .rights = rights,
    };
    return walk;
  }
}

}  // namespace mmu
