#include "mmu_core/mmu/shadow_page_lister.h"

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/paging/spte.h"

namespace mmu {
namespace {

Hpa AddressOf(const PageTable* table) {
  return Hpa(reinterpret_cast<uintptr_t>(table));
}

// Counts in `info` the current entries of the table.
void CountEntries(const PageTable& table, Level level, ShadowPageInfo& info) {
  for (const SpteSlot& slot : table.entries) {
    const Spte spte = slot.Load();
    if (!spte.IsPresent()) continue;
    ++info.present_entries;
    if (spte.IsLeaf(level)) ++info.leafs;
  }
}

// The gfn of the guest's table, or the gfns that a direct page maps.
GfnRange ConcernedGfns(Gfn gfn, PageRole role) {
  if (!role.IsDirect()) return GfnRange::Of(gfn, 1);
  return GfnRange::Of(gfn, PagesPer(role.level()) * kEntriesPerTable);
}

}  // namespace

bool ShadowPageLister::Passes(Gfn gfn, PageRole role) const {
  if (filter.level != 0 && filter.level != role.level_number()) return false;
  return filter.gfns.empty() || filter.gfns.Overlaps(ConcernedGfns(gfn, role));
}

EntryPlace PlaceOf(const SpteSlot& slot) {
  return {AddressOf(TableHolding(slot)), IndexInTable(slot)};
}

ShadowPageInfo Describe(const ShadowPage& page, MmuKind owner) {
  ShadowPageInfo info;
  info.owner = owner;
  info.table = AddressOf(page.table);
  info.gfn = page.gfn;
  info.role = page.role;
  CountEntries(*page.table, page.role.level(), info);
  return info;
}

}  // namespace mmu
