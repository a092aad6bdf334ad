#include "mmu_core/vm/jobs/split_order.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/current_dirty_log.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/vm/core/tracked_slots.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/cold_memory.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {
namespace {

constexpr Level kBlock = Level::k2M;

// A block of memory, or adjoining blocks of one place in the order.
struct Run {
  bool dirty = false;
  GenerationAge age = kNeverYoung;
  GfnRange range;
};

// `view` with those memslots alone that are still where they were.
GenerationView OfPresentSlots(const VmCore& vm, const GenerationView& view) {
  const std::vector<TrackedSlot> present = TrackedSlotsIn(vm, kAllGfns);
  SlotMaps slots;
  for (const SlotMap& map : *view.slots) {
    if (ContainsSlot(present, map.slot)) slots.push_back(map);
  }
  return {view.newest, std::make_shared<const SlotMaps>(std::move(slots))};
}

// The ends of `range`'s blocks, one after the other.
template <typename Fn>
void ForEachBlock(GfnRange range, Fn fn) {
  while (!range.empty()) {
    const Gfn end =
        std::min(RoundDown(range.start, kBlock) + PagesPer(kBlock), range.end);
    fn(GfnRange{range.start, end});
    range.start = end;
  }
}

// The pages that the dirty log has not delivered.
class UndeliveredPagesIn {
 public:
  UndeliveredPagesIn(const VmCore& vm, GfnRange range)
      : range_(range), words_(WordsFor(range.pages())) {
    const std::shared_ptr<VmDirtyLog> log = vm.dirty_log.GetOn();
    if (log == nullptr) return;
    for (const TrackedSlot& slot : TrackedSlotsIn(vm, range)) {
      ReadSlot(*log, slot);
    }
  }

  bool HasAny(GfnRange block) const {
    const uint64_t first = block.start - range_.start;
    const uint64_t end = block.end - range_.start;
    for (uint64_t word = first / kWordBits; word < WordsFor(end); ++word) {
      if ((words_[word] & WordMask(word, first, end)) != 0) return true;
    }
    return false;
  }

 private:
  void ReadSlot(const VmDirtyLog& log, const TrackedSlot& slot) {
    const GfnRange both = slot.range.Intersect(range_);
    const uint64_t first =
        (both.start - slot.range.start) / kWordBits * kWordBits;  // of the slot
    std::vector<uint64_t> words(WordsFor(both.end - slot.range.start - first));
    // A slot that is not logged, or not any more, has no such pages.
    if (!log.log
             .Read(absl::nullopt, slot.id, /*epoch=*/0, first,
                   absl::MakeSpan(words))
             .ok()) {
      return;
    }
    for (uint64_t word = 0; word < words.size(); ++word) {
      for (const uint64_t bit : SetBitsOf(words[word])) {
        const Gfn gfn = slot.range.start + first + word * kWordBits + bit;
        if (!both.Contains(gfn)) continue;
        const uint64_t at = gfn - range_.start;
        words_[at / kWordBits] |= uint64_t{1} << at % kWordBits;
      }
    }
  }

  const GfnRange range_;
  std::vector<uint64_t> words_;  // bit 0 is range_.start
};

void AddBlock(std::vector<Run>& runs, const Run& block) {
  if (!runs.empty()) {
    Run& last = runs.back();
    if (last.dirty == block.dirty && last.age == block.age &&
        last.range.end == block.range.start) {
      last.range.end = block.range.end;
      return;
    }
  }
  runs.push_back(block);
}

// Adds the blocks of `range` that are not cold to `runs`, and the pages of the
// others to `cold_pages`.
void AddRuns(const VmCore& vm, const GenerationView& view, GfnRange range,
             SplitOrder order, const absl::optional<ColdMemory>& cold,
             std::vector<Run>& runs, uint64_t& cold_pages) {
  const std::vector<GenerationAge> ages = HeatOfBlocks(view, range, kBlock);
  absl::optional<UndeliveredPagesIn> dirty;
  if (order == SplitOrder::kHottestDirtyFirst) dirty.emplace(vm, range);
  size_t block = 0;
  ForEachBlock(range, [&](GfnRange part) {
    const GenerationAge age = ages[block++];
    if (cold.has_value() && cold->Contains(part, age)) {
      cold_pages += part.pages();
      return;
    }
    AddBlock(runs, {.dirty = dirty.has_value() && dirty->HasAny(part),
                    .age = age,
                    .range = part});
  });
}

// Stable, so that runs of one place stay ascending.
void Sort(SplitOrder order, std::vector<Run>& runs) {
  switch (order) {
    case SplitOrder::kAscending:
      return;
    case SplitOrder::kDescending:
      std::reverse(runs.begin(), runs.end());
      return;
    case SplitOrder::kColdestFirst:
      std::stable_sort(
          runs.begin(), runs.end(),
          [](const Run& a, const Run& b) { return a.age > b.age; });
      return;
    case SplitOrder::kHottestDirtyFirst:
      std::stable_sort(
          runs.begin(), runs.end(), [](const Run& a, const Run& b) {
            return std::tuple(!a.dirty, a.age) < std::tuple(!b.dirty, b.age);
          });
      return;
  }
}

}  // namespace

absl::StatusOr<OrderedRanges> OrderForSplit(
    const VmCore& vm, std::vector<GfnRange> ranges, SplitOrder order,
    absl::optional<absl::Duration> cold_after) {
  OrderedRanges ordered;
  if (!IsByHeat(order) && !cold_after.has_value()) {
    if (order == SplitOrder::kDescending) {
      std::reverse(ranges.begin(), ranges.end());
    }
    ordered.ranges = std::move(ranges);
    return ordered;
  }
  const std::shared_ptr<const WorkingSet> working_set = vm.working_set.Find();
  const GenerationView view = working_set != nullptr
                                  ? OfPresentSlots(vm, working_set->View())
                                  : GenerationView();
  if (view.newest == 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {Reason::kNoGeneration, "order", ENODATA},
                     "the order, or the age of cold memory, needs a working "
                     "set, and the VM's has no generation yet; make one with "
                     "CreateGeneration, or switch the ager on");
  }
  absl::optional<ColdMemory> cold;
  if (cold_after.has_value()) {
    cold.emplace(*working_set, view,
                 MonotonicNanos() - absl::ToInt64Nanoseconds(*cold_after));
  }
  std::vector<Run> runs;
  for (const GfnRange range : ranges) {
    AddRuns(vm, view, range, order, cold, runs, ordered.cold_pages);
  }
  Sort(order, runs);
  for (const Run& run : runs) ordered.ranges.push_back(run.range);
  return ordered;
}

}  // namespace mmu
