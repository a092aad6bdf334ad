#include "mmu_core/memory/memslot_set.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {
namespace {

Hva EndOf(const Memslot& slot) {
  return slot.hva + (slot.npages << kPageShift);
}

}  // namespace

MemslotSet::MemslotSet(uint64_t generation, std::vector<SlotPtr> slots)
    : generation_(generation) {
  for (SlotPtr& slot : slots) Insert(std::move(slot));
}

MemslotSet::MemslotSet(MemslotSet& before, uint64_t generation, uint32_t id,
                       SlotPtr slot)
    : owned_(std::move(before.owned_)), generation_(generation) {
  const auto copy = [](const auto& from, auto& to) {
    to.reserve(from.size() + 1);
    to = from;
  };
  copy(before.by_gfn_, by_gfn_);
  copy(before.by_id_, by_id_);
  copy(before.by_hva_, by_hva_);
  Erase(id);
  if (slot != nullptr) Insert(std::move(slot));
}

void MemslotSet::Insert(SlotPtr slot) {
  const Memslot* const added = slot.get();
  const auto gfn_at = std::partition_point(
      by_gfn_.begin(), by_gfn_.end(), [added](const Memslot* other) {
        return other->base_gfn < added->base_gfn;
      });
  MMU_CHECK(gfn_at == by_gfn_.end() ||
            added->range().end <= (*gfn_at)->base_gfn);
  MMU_CHECK(gfn_at == by_gfn_.begin() ||
            (*std::prev(gfn_at))->range().end <= added->base_gfn);
  owned_.insert(owned_.begin() + (gfn_at - by_gfn_.begin()), std::move(slot));
  by_gfn_.insert(gfn_at, added);

  const auto id_at = std::partition_point(
      by_id_.begin(), by_id_.end(),
      [added](const Memslot* other) { return other->id < added->id; });
  MMU_CHECK(id_at == by_id_.end() || (*id_at)->id != added->id);
  by_id_.insert(id_at, added);

  const auto hva_at = std::partition_point(
      by_hva_.begin(), by_hva_.end(),
      [added](const HvaEntry& other) { return other.slot->hva <= added->hva; });
  const size_t first = hva_at - by_hva_.begin();
  by_hva_.insert(hva_at, {added, Hva()});
  SetMaxEnds(first);
}

void MemslotSet::Erase(uint32_t id) {
  const Memslot* const removed = FindById(id);
  if (removed == nullptr) return;
  const auto erase = [removed](std::vector<const Memslot*>& from) {
    const auto at = std::find(from.begin(), from.end(), removed);
    const auto index = at - from.begin();
    from.erase(at);
    return index;
  };
  erase(by_id_);
  const auto hva_at = std::find_if(
      by_hva_.begin(), by_hva_.end(),
      [removed](const HvaEntry& entry) { return entry.slot == removed; });
  const size_t first = hva_at - by_hva_.begin();
  by_hva_.erase(hva_at);
  SetMaxEnds(first);
  const auto owner = owned_.begin() + erase(by_gfn_);
  replaced_ = std::move(*owner);
  owned_.erase(owner);
}

void MemslotSet::SetMaxEnds(size_t first) {
  Hva max_end = first == 0 ? Hva() : by_hva_[first - 1].max_end;
  for (size_t i = first; i < by_hva_.size(); ++i) {
    max_end = std::max(max_end, EndOf(*by_hva_[i].slot));
    by_hva_[i].max_end = max_end;
  }
}

const Memslot* MemslotSet::FindByGfn(Gfn gfn) const {
  // The first slot that starts beyond gfn; the one before it is the candidate.
  auto it = std::upper_bound(
      by_gfn_.begin(), by_gfn_.end(), gfn,
      [](Gfn g, const Memslot* slot) { return g < slot->base_gfn; });
  if (it == by_gfn_.begin()) return nullptr;
  const Memslot* slot = *--it;
  return slot->Contains(gfn) ? slot : nullptr;
}

const Memslot* MemslotSet::FindById(uint32_t id) const {
  auto it = std::lower_bound(
      by_id_.begin(), by_id_.end(), id,
      [](const Memslot* slot, uint32_t value) { return slot->id < value; });
  return it != by_id_.end() && (*it)->id == id ? *it : nullptr;
}

absl::Span<const Memslot* const> MemslotSet::SlotsIn(GfnRange range) const {
  if (range.empty()) return {};
  auto first = std::partition_point(
      by_gfn_.begin(), by_gfn_.end(),
      [&](const Memslot* slot) { return slot->range().end <= range.start; });
  auto last = std::partition_point(
      first, by_gfn_.end(),
      [&](const Memslot* slot) { return slot->base_gfn < range.end; });
  return slots().subspan(static_cast<size_t>(first - by_gfn_.begin()),
                         static_cast<size_t>(last - first));
}

void MemslotSet::ForEachInHvaRange(
    Hva start, Hva end,
    absl::FunctionRef<void(const Memslot& slot, GfnRange gfns)> fn) const {
  if (end <= start) return;
  auto it = std::partition_point(
      by_hva_.begin(), by_hva_.end(),
      [&](const HvaEntry& entry) { return entry.max_end <= start; });
  for (; it != by_hva_.end() && it->slot->hva < end; ++it) {
    const Memslot& slot = *it->slot;
    if (EndOf(slot) <= start) continue;
    const uint64_t first_byte = std::max(start, slot.hva) - slot.hva;
    const uint64_t end_byte = std::min(end, EndOf(slot)) - slot.hva;
    const uint64_t end_page = (end_byte + kPageSize - 1) >> kPageShift;
    fn(slot, GfnRange{slot.base_gfn + (first_byte >> kPageShift),
                      slot.base_gfn + end_page});
  }
}

}  // namespace mmu
