#include "mmu_core/memory/memslot_set.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/slot_index.h"

namespace mmu {

MemslotSet::MemslotSet(uint64_t generation, const std::vector<SlotPtr>& slots)
    : generation_(generation) {
  for (const SlotPtr& slot : slots) Insert(slot);
}

MemslotSet::MemslotSet(const MemslotSet& before, uint64_t generation,
                       uint32_t id, SlotPtr slot)
    : by_gfn_(before.by_gfn_),
      by_id_(before.by_id_),
      by_hva_(before.by_hva_),
      generation_(generation) {
  if (slot == nullptr) {
    Erase(id);
  } else {
    MMU_CHECK(slot->id == id);
    Put(std::move(slot));
  }
}

MemslotSet::MemslotSet(const MemslotSet& before, uint64_t generation,
                       absl::Span<const SlotPtr> slots)
    : by_gfn_(before.by_gfn_),
      by_id_(before.by_id_),
      by_hva_(before.by_hva_),
      generation_(generation) {
  for (const SlotPtr& slot : slots) Put(slot);
}

void MemslotSet::Put(SlotPtr slot) {
  const Memslot* const old = FindById(slot->id);
  if (old == nullptr || old->base_gfn != slot->base_gfn ||
      old->npages != slot->npages || old->hva != slot->hva) {
    Erase(slot->id);
    Insert(std::move(slot));
    return;
  }
  // The new slot has the old one's place in each index.
  by_hva_.Replace(slot.get());
  by_id_.Replace(slot.get());
  by_gfn_.Replace(std::move(slot));  // may free the old one
}

void MemslotSet::Insert(SlotPtr slot) {
  const Memslot* const added = slot.get();
  const auto before = by_gfn_.Floor(added->base_gfn);
  MMU_CHECK(before == by_gfn_.end() ||
            (*before)->range().end <= added->base_gfn);
  const auto after = by_gfn_.LowerBound(added->base_gfn);
  MMU_CHECK(after == by_gfn_.end() || added->range().end <= (*after)->base_gfn);
  by_gfn_.Insert(std::move(slot));
  by_id_.Insert(added);
  by_hva_.Insert(added);
}

void MemslotSet::Erase(uint32_t id) {
  const Memslot* const removed = FindById(id);
  if (removed == nullptr) return;
  by_hva_.Erase(ByHva::KeyOf(*removed));
  by_id_.Erase(id);
  const Gfn base_gfn = removed->base_gfn;
  by_gfn_.Erase(base_gfn);  // may free the slot
}

const Memslot* MemslotSet::FindByGfn(Gfn gfn) const {
  const auto it = by_gfn_.Floor(gfn);
  return it != by_gfn_.end() && (*it)->Contains(gfn) ? *it : nullptr;
}

const Memslot* MemslotSet::FindById(uint32_t id) const {
  const auto it = by_id_.Find(id);
  return it != by_id_.end() ? *it : nullptr;
}

MemslotSet::SlotPtr MemslotSet::FindOwnedById(uint32_t id) const {
  const Memslot* const slot = FindById(id);
  return slot == nullptr ? nullptr : by_gfn_.Find(slot->base_gfn).entry();
}

std::vector<MemslotSet::SlotPtr> MemslotSet::owned_slots() const {
  std::vector<SlotPtr> owned;
  for (auto it = by_gfn_.begin(); it != by_gfn_.end(); ++it) {
    owned.push_back(it.entry());
  }
  return owned;
}

SlotRange MemslotSet::SlotsIn(GfnRange range) const {
  if (range.empty()) return {};
  auto first = by_gfn_.Floor(range.start);
  if (first == by_gfn_.end()) {
    first = by_gfn_.begin();
  } else if ((*first)->range().end <= range.start) {
    ++first;
  }
  return {first, by_gfn_.LowerBound(range.end)};
}

void MemslotSet::ForEachInHvaRange(
    Hva start, Hva end,
    absl::FunctionRef<void(const Memslot& slot, GfnRange gfns)> fn) const {
  if (end <= start) return;
  for (const Memslot* const slot : by_hva_.FromBound(start)) {
    if (slot->hva >= end) break;
    const Hva slot_end = ByHva::BoundOf(*slot);
    if (slot_end <= start) continue;
    const uint64_t first_byte = std::max(start, slot->hva) - slot->hva;
    const uint64_t end_byte = std::min(end, slot_end) - slot->hva;
    const uint64_t end_page = (end_byte + kPageSize - 1) >> kPageShift;
    fn(*slot, GfnRange{slot->base_gfn + (first_byte >> kPageShift),
                       slot->base_gfn + end_page});
  }
}

}  // namespace mmu
