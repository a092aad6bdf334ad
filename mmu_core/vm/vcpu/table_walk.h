// The processor's page walk on a TLB miss, for all kinds of tables. The rights
// that an entry grants differ between a second stage (hardware_walk.h) and
// shadow pages (shadow_walk.h). The rest of the walk is the same and is here.

#ifndef MMU_CORE_VM_VCPU_TABLE_WALK_H_
#define MMU_CORE_VM_VCPU_TABLE_WALK_H_

#include <concepts>
#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/paging_structure_cache.h"
#include "mmu_core/tlb/vcpu_tlb.h"

namespace mmu {

// A value.
struct WalkResult {
  enum class Kind : uint8_t {
    kTranslated,  // `entry` is set
    kNotPresent,  // violation: no entry
    kNotAllowed,  // violation: an entry without this permission
    kReserved,    // an MMIO SPTE: EPT misconfiguration, NPT reserved bit
    kLogFull,     // D must be set, and the CPU's dirty log has no room
  } kind = Kind::kNotPresent;
  TlbEntry entry;

  bool translated() const { return kind == Kind::kTranslated; }
  Spte mmio;  // set with kReserved
};

// The tables, the formats of their entries and the memory that they map;
// constant during a walk. And the cache of pointers to these tables, or null.
struct WalkedTables {
  const SpteFormat& format;
  const MmioFormat& mmio;
  const HostMemory& memory;
  PageTable* top;
  Level level;  // of `top`
  uint64_t root_id;
  PagingStructureCache* cache;
};

// The part of the walk that depends on the kind of tables. There is one policy
// object per walk; a walk that starts over calls Begin again.
template <typename P>
concept WalkPolicy = requires(P policy, const P const_policy, Spte spte,
                              const SpteSlot& slot, PageNumber page,
                              AccessRights rights, TlbEntry entry) {
  // The walk is at a table. All entries above it together grant `rights`.
  {policy.BeginWith(rights)};
  // What all entries on the way grant together, as far as the policy asks.
  { const_policy.rights() } -> std::same_as<AccessRights>;
  // The walk is at a present or non-present entry. Returns false if the
  // processor treats the entry as not present.
  { policy.Enter(spte) } -> std::same_as<bool>;
  // Returns whether all entries on the way, and this leaf last, grant the
  // access.
  { const_policy.Permits(spte) } -> std::same_as<bool>;
  { const_policy.kind() } -> std::same_as<AccessKind>;
  // Called before D is set. Returns false if the CPU's own log has no room to
  // log the page.
  { const_policy.HasRoomInLog() } -> std::same_as<bool>;
  // D was set.
  {policy.NoteInLog(page)};
  // Sets the gfn that the leaf maps, and the rights that the leaf, as it is
  // now, grants to the entry. Returns false if the leaf has changed so much
  // that the walk must start over.
  { const_policy.Describe(slot, spte, entry) } -> std::same_as<bool>;
};

// Translates `page`. Sets A, and D for a write, by compare-exchange on the leaf
// that it uses, and A in each entry on the way, before it reads the table there
// or caches the pointer (SDM vol. 3, 29.3.5; APM vol. 2, 15.25.6). If the entry
// changed meanwhile, the exchange fails, so that the change is never
// overwritten, and the walk starts over, as in hardware.
//
// Only the ageing of the TDP MMU takes A from entries on the way (RACE-55). An
// entry of a shadow table is made with it, so no walk changes that entry, and
// the shadow MMU may rely on the value that it wrote.
// REQUIRES: an open access section of the vCPU (tlb/vcpu_gate.h).
template <WalkPolicy Policy>
WalkResult WalkTables(const WalkedTables& tables, PageNumber page,
                      Policy policy) {
  const SpteFormat& format = tables.format;
  WalkResult result;
  // The model does not need this section: a table is freed only after the TLB
  // flush, which waits for access sections. Roots that are freed without a
  // flush need it.
  RcuReadGuard rcu;
  PagingStructureCache* const cache = tables.cache;
  const uint64_t walked = format.has_ad() ? format.accessed_mask() : 0;
  for (;;) {
    bool changed = false;
    PageTable* table = tables.top;
    Level level = tables.level;
    SpteSlot* slot;
    Spte spte;
    policy.BeginWith(kAllRights);
    if (ABSL_PREDICT_FALSE(cache != nullptr)) {
      if (const auto cached = cache->Find(page, level); cached.has_value()) {
        table = cached->table;
        level = cached->level;
        policy.BeginWith(cached->rights);
      }
    }
    for (;;) {
      slot = &table->entries[IndexOf(page, level)];
      spte = slot->Load();
      // Reserved bits are checked before permissions.
      if (!spte.IsPresent() && tables.mmio.IsMmio(spte)) {
        result.kind = WalkResult::Kind::kReserved;
        result.mmio = spte;
        return result;
      }
      if (!policy.Enter(spte)) return result;
      if (spte.IsLeaf(level)) break;
      if (ABSL_PREDICT_FALSE((spte.bits() & walked) != walked)) {
        AtHook(HookPoint::kEntryToWalk);
        changed = !slot->CompareExchange(spte, format.WithAccessed(spte));
        if (changed) break;
      }
      table = TableOf(spte);
      level = ChildOf(level);
      if (ABSL_PREDICT_FALSE(cache != nullptr)) {
        cache->Insert({.table = table,
                       .level = level,
                       .first = RoundDown(page, ParentOf(level)),
                       .rights = policy.rights(),
                       .root_id = tables.root_id});
      }
      AtHook(HookPoint::kWalkToTable);
    }
    if (changed) continue;
    if (!policy.Permits(spte)) {
      result.kind = WalkResult::Kind::kNotAllowed;
      return result;
    }
    Spte assisted = spte;
    if (format.has_ad()) {
      assisted = format.WithAccessed(spte);
      if (policy.kind() == AccessKind::kWrite) {
        assisted = format.WithDirty(assisted);
      }
    }
    const bool sets_dirty = format.IsDirty(assisted) && !format.IsDirty(spte);
    if (sets_dirty && !policy.HasRoomInLog()) {
      result.kind = WalkResult::Kind::kLogFull;
      return result;
    }
    if (assisted != spte && !slot->CompareExchange(spte, assisted)) continue;
    if (sets_dirty) policy.NoteInLog(page);

    result.kind = WalkResult::Kind::kTranslated;
    result.entry = {
        .base_page = RoundDown(page, level),
        .gfn = Gfn(),
        .pfn = assisted.pfn(),
        .host = tables.memory.PointerTo(assisted.pfn()),
        .root_id = tables.root_id,
        .level = level,
        // A format without Dirty bits has none to set on a write.
        .dirty_set = !format.has_ad() || format.IsDirty(assisted),
    };
    if (!policy.Describe(*slot, assisted, result.entry)) continue;
    return result;
  }
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_TABLE_WALK_H_
