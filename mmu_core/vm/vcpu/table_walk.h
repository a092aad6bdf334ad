// The walk that a processor makes on a TLB miss, for whichever tables it walks.
// What an entry grants differs between a second stage and shadow pages; the
// rest is the same and is here: hardware_walk.h and shadow_walk.h say what
// differs.

#ifndef MMU_CORE_VM_VCPU_TABLE_WALK_H_
#define MMU_CORE_VM_VCPU_TABLE_WALK_H_

#include <concepts>
#include <cstdint>

#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/paging/mmio_spte.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/sync/rcu.h"
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
  Spte mmio;  // of kReserved
};

// The tables and what they lead to; constant during a walk.
struct WalkedTables {
  const SpteFormat& format;
  const MmioFormat& mmio;
  const HostMemory& memory;
  PageTable* top;
  Level level;  // of `top`
  uint64_t root_id;
};

// What differs between kinds of tables. One object per walk; a walk that starts
// over calls Begin again.
template <typename P>
concept WalkPolicy = requires(P policy, const P const_policy, Spte spte,
                              PageNumber page, TlbEntry entry) {
  // The walk is at the top.
  { policy.Begin() };
  // The walk is at an entry that is present or not: false, if to the processor
  // nothing is there.
  { policy.Enter(spte) } -> std::same_as<bool>;
  // All entries on the way, and this leaf last, grant the access.
  { const_policy.Permits(spte) } -> std::same_as<bool>;
  { const_policy.kind() } -> std::same_as<AccessKind>;
  // D is about to be set: false, if that cannot be noted in the CPU's own log.
  { const_policy.HasRoomInLog() } -> std::same_as<bool>;
  // D was set.
  { policy.NoteInLog(page) };
  // Sets what the entry grants, of the leaf as it is now.
  { const_policy.SetRights(spte, entry) };
};

// Translates `page`. Sets A, and D for a write, by compare-exchange on the leaf
// that it uses, so that a change made meanwhile is never overwritten: the walk
// then starts over, as hardware does. REQUIRES: an open access section of the
// vCPU (tlb/vcpu_gate.h).
template <WalkPolicy Policy>
WalkResult WalkTables(const WalkedTables& tables, PageNumber page,
                      Policy policy) {
  const SpteFormat& format = tables.format;
  WalkResult result;
  // Not for the model's sake (a table is freed only after the TLB flush, which
  // waits for access sections) but for roots that are freed without one.
  RcuReadGuard rcu;
  for (;;) {
    PageTable* table = tables.top;
    Level level = tables.level;
    SpteSlot* slot;
    Spte spte;
    policy.Begin();
    for (;;) {
      slot = &table->entries[IndexOf(page, level)];
      spte = slot->Load();
      // Reserved bits come before permissions.
      if (!spte.IsPresent() && tables.mmio.IsMmio(spte)) {
        result.kind = WalkResult::Kind::kReserved;
        result.mmio = spte;
        return result;
      }
      if (!policy.Enter(spte)) return result;
      if (spte.IsLeaf(level)) break;
      table = TableOf(spte);
      level = ChildOf(level);
      AtHook(HookPoint::kWalkToTable);
    }
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
        .pfn = assisted.pfn(),
        .host = tables.memory.PointerTo(assisted.pfn()),
        .root_id = tables.root_id,
        .level = level,
        // Without Dirty bits there is none to set on a write.
        .dirty_set = !format.has_ad() || format.IsDirty(assisted),
    };
    policy.SetRights(assisted, result.entry);
    return result;
  }
}

}  // namespace mmu

#endif  // MMU_CORE_VM_VCPU_TABLE_WALK_H_
