#include "mmu_core/mmu/guest_table_audit.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "mmu_core/base/level.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/rmap/slot_rmaps.h"

namespace mmu {

void GuestTableAudit::AddTable(const AuditedGuestTable& table) {
  Pages& pages = tables_[{table.as_id, table.gfn}];
  ++pages.all;
  if (table.level > Level::k4K) {
    ++pages.trackers;
    pages.is_protected = true;
  } else if (!table.unsync) {
    pages.is_protected = true;
  }
}

void GuestTableAudit::AddLeaf(const AuditedLeaf& leaf) {
  if (!leaf.writable && !leaf.mmu_writable) return;
  writable_leafs_.push_back({{leaf.as_id, leaf.gfn}, leaf.level});
}

void GuestTableAudit::Check(AuditSink& sink) const {
  CheckLeafs(sink);
  uint64_t in_slots = 0;
  sink.ForEachSlot([&](const Memslot& slot) {
    in_slots += TablesIn(slot).size();
    CheckTrackers(slot, sink);
    CheckHugePages(slot, sink);
  });
  if (in_slots != tables_.size()) {
    sink.Violation(9,
                   "%d guests' tables have shadow pages, but only %d are in "
                   "memslots",
                   tables_.size(), in_slots);
  }
}

// Searches the tables for one that the leaf maps, instead of each gfn of the
// leaf among the tables: there are few tables, and a leaf may map many gfns.
void GuestTableAudit::CheckLeafs(AuditSink& sink) const {
  if (tables_.empty()) return;
  for (const Leaf& leaf : writable_leafs_) {
    const Place end(leaf.first.first, leaf.first.second + PagesPer(leaf.level));
    for (auto at = tables_.lower_bound(leaf.first);
         at != tables_.end() && at->first < end; ++at) {
      if (!at->second.is_protected) continue;
      sink.Violation(9,
                     "the leaf at gfn 0x%x level %d maps the guest's table "
                     "at gfn 0x%x writable",
                     leaf.first.second.value(), ToInt(leaf.level),
                     at->first.second.value());
      break;
    }
  }
}

std::vector<std::pair<Gfn, GuestTableAudit::Pages>> GuestTableAudit::TablesIn(
    const Memslot& slot) const {
  std::vector<std::pair<Gfn, Pages>> found;
  const Place end(slot.as_id, slot.range().end);
  for (auto at = tables_.lower_bound({slot.as_id, slot.base_gfn});
       at != tables_.end() && at->first < end; ++at) {
    found.push_back({at->first.second, at->second});
  }
  return found;
}

void GuestTableAudit::CheckTrackers(const Memslot& slot,
                                    AuditSink& sink) const {
  std::map<Gfn, uint32_t> counted;
  if (const SlotRmaps* const rmaps = slot.shadow_rmaps(); rmaps != nullptr) {
    rmaps->ForEachWriteTracked(
        [&](Gfn gfn, uint16_t count) { counted[gfn] = count; });
  }
  for (const auto& [gfn, pages] : TablesIn(slot)) {
    const uint32_t count = counted[gfn];
    counted.erase(gfn);
    if (count == pages.trackers) continue;
    sink.Violation(9, "gfn 0x%x has %d write trackers, but %d pages",
                   gfn.value(), count, pages.trackers);
  }
  for (const auto& [gfn, count] : counted) {
    sink.Violation(9, "gfn 0x%x has %d write trackers, but 0 pages",
                   gfn.value(), count);
  }
}

void GuestTableAudit::CheckHugePages(const Memslot& slot,
                                     AuditSink& sink) const {
  const std::vector<std::pair<Gfn, Pages>> tables = TablesIn(slot);
  for (const Level level : {Level::k2M, Level::k1G}) {
    const LpageInfo& info = *slot.lpage_info;
    const Gfn first = RoundDown(slot.base_gfn, level);
    std::vector<uint32_t> expected(info.block_count(level));
    for (const auto& [gfn, pages] : tables) {
      expected[(gfn - first) / PagesPer(level)] += pages.all;
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      const Gfn gfn =
          std::max(slot.base_gfn, first + uint64_t{i} * PagesPer(level));
      const uint32_t disallows = info.Disallows(gfn, level);
      if (disallows == expected[i]) continue;
      sink.Violation(14,
                     "%d reasons against a page of level %d at gfn 0x%x "
                     "are counted, but %d guests' tables are there",
                     static_cast<int32_t>(disallows), ToInt(level), gfn.value(),
                     expected[i]);
    }
  }
}

}  // namespace mmu
