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

namespace mmu {
namespace {

Hva EndOf(const Memslot& slot) {
  return slot.hva + (slot.npages << kPageShift);
}

}  // namespace

MemslotSet::MemslotSet(uint64_t generation, std::vector<SlotPtr> slots)
    : owned_(std::move(slots)), generation_(generation) {
  std::sort(owned_.begin(), owned_.end(),
            [](const SlotPtr& a, const SlotPtr& b) {
              return a->base_gfn < b->base_gfn;
            });
  by_gfn_.reserve(owned_.size());
  for (const SlotPtr& slot : owned_) by_gfn_.push_back(slot.get());
  for (size_t i = 1; i < by_gfn_.size(); ++i) {
    MMU_CHECK(by_gfn_[i - 1]->range().end <= by_gfn_[i]->base_gfn);
  }

  by_id_ = by_gfn_;
  std::sort(by_id_.begin(), by_id_.end(),
            [](const Memslot* a, const Memslot* b) { return a->id < b->id; });
  for (size_t i = 1; i < by_id_.size(); ++i) {
    MMU_CHECK(by_id_[i - 1]->id < by_id_[i]->id);
  }

  std::vector<const Memslot*> by_hva = by_gfn_;
  std::stable_sort(
      by_hva.begin(), by_hva.end(),
      [](const Memslot* a, const Memslot* b) { return a->hva < b->hva; });
  by_hva_.reserve(by_hva.size());
  Hva max_end;
  for (const Memslot* slot : by_hva) {
    max_end = std::max(max_end, EndOf(*slot));
    by_hva_.push_back({slot, max_end});
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
