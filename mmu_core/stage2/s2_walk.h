// The processor's stage-2 walk on a TLB miss (DDI0487, D8.2 and D8.4), for
// vCPUs; never the MMU's own code.

#ifndef MMU_CORE_STAGE2_S2_WALK_H_
#define MMU_CORE_STAGE2_S2_WALK_H_

#include <cstdint>

#include "absl/base/optimization.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/tlb/basic_paging_structure_cache.h"
#include "mmu_core/tlb/basic_vcpu_tlb.h"

namespace mmu {

// A value.
struct S2WalkResult {
  enum class Kind : uint8_t {
    kTranslated,        // `entry` is set
    kTranslationFault,  // no valid descriptor
    kAccessFlagFault,   // AF is clear, and the processor does not set it
    kPermissionFault,   // S2AP or XN forbids the access
  } kind = Kind::kTranslationFault;
  TlbEntry entry;

  bool translated() const { return kind == Kind::kTranslated; }
  Level level{1};  // at which the walk ended
  // The access set S2AP[1]: the first write since the page was protected.
  bool noted_write = false;
};

// Why a processor walks.
enum class S2WalkFor : uint8_t {
  kAccess,
  // Ahead of an access that may never come. It sets no flag, though the
  // architecture would let it set AF: so pages look no younger than they are.
  kSpeculation,
};

// Translates `page`. With hardware management of AF and of the dirty state an
// access sets AF, and a write S2AP[1], by compare-exchange, and walks again if
// the descriptor changed meanwhile. Without AF nothing is translated, since no
// TLB may keep such an entry.
// `cache` keeps pointers to tables; null: none are kept. REQUIRES: an open
// access section of the vCPU (tlb/vcpu_gate.h).
template <TableGeometry G>
S2WalkResult WalkStage2(const Stage2State<G>& state, const HostMemory& memory,
                        PageNumber page, AccessKind kind,
                        BasicPagingStructureCache<S2Paging<G>>* cache,
                        S2WalkFor walk_for = S2WalkFor::kAccess) {
  using Kind = S2WalkResult::Kind;
  // No RCU read section: a table is freed only after a TLBI, and that waits for
  // access sections.
  S2WalkResult result;
  const S2Shape& shape = state.options.shape;
  const Gfn gfn(page.value());
  // The address size fault of a real processor; no memslot is up there.
  if (gfn.value() >> (shape.ipa_bits - kPageShift) != 0) return result;
  for (;;) {
    Level level = shape.start_level;
    // The tables of the root are contiguous.
    S2Table<G>* table = state.root->tables() +
                        (gfn.value() >> PagesShift<G>(level) >> G::kEntryBits);
    if (ABSL_PREDICT_FALSE(cache != nullptr)) {
      if (const auto cached = cache->Find(page, level); cached.has_value()) {
        table = cached->table;
        level = cached->level;
      }
    }
    S2Slot* slot;
    S2Descriptor descriptor;
    for (;;) {
      slot = &table->entries[IndexOf<G>(gfn, level)];
      descriptor = slot->Load();
      result.level = level;
      if (!descriptor.IsPresent()) return result;
      if (descriptor.IsLeaf(level)) break;
      table = S2Paging<G>::TableOf(descriptor);
      level = ChildOf(level);
      if (ABSL_PREDICT_FALSE(cache != nullptr)) {
        cache->Insert(
            {.table = table,
             .level = level,
             .first = PageNumber(RoundDown<G>(gfn, ParentOf(level)).value()),
             .rights = kAllRights});
      }
      AtHook(HookPoint::kWalkToTable);
    }
    const bool sets_af =
        walk_for == S2WalkFor::kAccess && state.options.SetsAccessFlag();
    // An Access flag fault comes before a permission fault (D8.6).
    if (!descriptor.IsAccessed() && !sets_af) {
      result.kind = Kind::kAccessFlagFault;
      return result;
    }
    const S2Descriptor accessed = descriptor.AfterAccess(kind);
    if (!accessed.Allows(kind)) {
      result.kind = Kind::kPermissionFault;
      return result;
    }
    if (accessed != descriptor &&
        !slot->CompareExchange(descriptor, accessed)) {
      continue;
    }
    result.noted_write = accessed.HasNotedWrite() && !descriptor.IsWritable();
    const Gfn first = RoundDown<G>(gfn, level);
    result.kind = Kind::kTranslated;
    result.entry = {.base_page = PageNumber(first.value()),
                    .gfn = first,
                    .pfn = accessed.pfn(),
                    .host = memory.PointerTo(accessed.pfn()),
                    .level = level,
                    .writable = accessed.IsWritable() || accessed.NotesWrites(),
                    .executable = accessed.IsExecutable(),
                    .dirty_set = accessed.IsWritable()};
    return result;
  }
}

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_WALK_H_
