#include "mmu_core/working_set/working_set.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/with_memory.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/generation_map.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {

WorkingSet::WorkingSet() : slots_(std::make_shared<const SlotMaps>()) {}

absl::Status WorkingSet::SyncSlots(absl::Span<const TrackedSlot> slots) {
  // Destroyed after the mutex is released: a map may be large.
  std::shared_ptr<const SlotMaps> dropped;
  MutexLock lock(mu_);
  std::shared_ptr<const SlotMaps> made;
  const bool enough = TryWithMemory([&, &before = *slots_, next = newest_ + 1] {
    absl::optional<SlotMaps> maps = MapsOfSlots(before, slots, next);
    if (!maps.has_value()) return false;
    made = std::make_shared<const SlotMaps>(*std::move(maps));
    return true;
  });
  if (!enough) return NoMemory("slots", "track the young pages of memslots");
  dropped = std::exchange(slots_, std::move(made));
  return absl::OkStatus();
}

uint64_t WorkingSet::Begin(int64_t now_nanos) {
  GenerationView view;
  {
    MutexLock lock(mu_);
    MMU_CHECK(!IsOpen());
    MMU_CHECK(newest_ == 0 || now_nanos >= *At(newest_).ended_at_nanos);
    ++newest_;
    At(newest_) = {newest_, now_nanos, absl::nullopt, {}};
    view = {newest_, slots_};
  }
  // A reader beside this that has the new generation reads the same ages from
  // the bytes before and after. One that is n generations behind may take a
  // page of age 127, which stands for all greater ages, for one of age 127 - n.
  if (view.newest % kClampInterval == 0) {
    for (const SlotMap& slot : *view.slots) slot.map->Clamp(view.newest);
  }
  return view.newest;
}

void WorkingSet::Record(GfnRange range, absl::Span<const uint64_t> young,
                        Gfn first_gfn) {
  MMU_CHECK(range.empty() || first_gfn <= range.start);
  const GenerationView view = OpenView();
  ForEachSlotIn(*view.slots, range, [&](const SlotMap& slot, GfnRange part) {
    const Gfn base = slot.slot.range.start;
    slot.map->Record(part.start - base, part.end - base, young,
                     part.start - first_gfn, view.newest);
  });
}

void WorkingSet::RecordAll(GfnRange range) {
  const GenerationView view = OpenView();
  ForEachSlotIn(*view.slots, range, [&](const SlotMap& slot, GfnRange part) {
    const Gfn base = slot.slot.range.start;
    slot.map->RecordAll(part.start - base, part.end - base, view.newest);
  });
}

void WorkingSet::End(int64_t now_nanos, const GenerationTotals& totals) {
  MutexLock lock(mu_);
  MMU_CHECK(IsOpen());
  Generation& generation = At(newest_);
  MMU_CHECK(now_nanos >= generation.began_at_nanos);
  generation.ended_at_nanos = now_nanos;
  generation.totals = totals;
}

WorkingSetSnapshot WorkingSet::TakeSnapshot(
    int64_t now_nanos, absl::Span<const int64_t> windows_nanos) const {
  std::vector<Generation> generations;
  generations.reserve(kKeptGenerations);
  GenerationView view;
  {
    MutexLock lock(mu_);
    view = {newest_, slots_};
    const uint64_t count = std::min(newest_, kKeptGenerations);
    for (uint64_t age = 0; age < count; ++age) {
      generations.push_back(At(newest_ - age));
    }
  }
  AgeHistogram pages{};
  const GenerationAges ages(view.newest);
  for (const SlotMap& slot : *view.slots) slot.map->AddTo(pages, ages);
  return MakeWorkingSetSnapshot(std::move(generations), pages, now_nanos,
                                windows_nanos);
}

absl::optional<Generation> WorkingSet::FindGeneration(uint64_t sequence) const {
  MutexLock lock(mu_);
  if (sequence == 0 || sequence > newest_ ||
      newest_ - sequence >= kKeptGenerations) {
    return absl::nullopt;
  }
  return At(sequence);
}

GenerationView WorkingSet::View() const {
  MutexLock lock(mu_);
  return {newest_, slots_};
}

GenerationView WorkingSet::OpenView() const {
  MutexLock lock(mu_);
  MMU_CHECK(IsOpen());
  return {newest_, slots_};
}

}  // namespace mmu
