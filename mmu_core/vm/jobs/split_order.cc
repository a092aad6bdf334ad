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
#include "mmu_core/memory/memslot_set.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/spin.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {
namespace {

constexpr Level kBlock = Level::k2M;

// A block of memory, or adjoining blocks of one place in the order.
struct Run {
  bool dirty = false;
  GenerationAge age = kNeverYoung;
  GfnRange range;
};

// The youngest generation whose pages are cold: those of this age and of all
// greater ages. Above kNeverYoung if not even those of kNeverYoung are.
GenerationAge FirstColdAge(const WorkingSet& working_set, uint64_t newest,
                           absl::Duration cold_after) {
  const int64_t latest =
      MonotonicNanos() - absl::ToInt64Nanoseconds(cold_after);
  const uint64_t remembered = std::min(newest, kKeptGenerations);
  for (uint64_t age = 0; age < remembered; ++age) {
    const auto generation = working_set.FindGeneration(newest - age);
    // The page was accessed before its generation ended, at the latest.
    if (generation.has_value() && generation->ended_at_nanos.has_value() &&
        *generation->ended_at_nanos <= latest) {
      return static_cast<GenerationAge>(age);
    }
  }
  // What the first generation did not find young was not accessed since.
  const auto first = working_set.FindGeneration(newest - remembered + 1);
  const bool long_ago = first.has_value() && first->began_at_nanos <= latest;
  return static_cast<GenerationAge>(long_ago ? kNeverYoung : kNeverYoung + 1);
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
    for (const Slot& slot : SlotsIn(vm, range)) ReadSlot(*log, slot);
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
  struct Slot {
    uint32_t id;
    GfnRange range;
  };
  static std::vector<Slot> SlotsIn(const VmCore& vm, GfnRange range) {
    std::vector<Slot> slots;
    RcuReadGuard rcu;
    for (const Memslot* slot : vm.slots.Active(0).SlotsIn(range)) {
      slots.push_back({slot->id, slot->range()});
    }
    return slots;
  }
  void ReadSlot(const VmDirtyLog& log, const Slot& slot) {
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

void AddRuns(const VmCore& vm, const GenerationView& view, GfnRange range,
             SplitOrder order, std::vector<Run>& runs) {
  const std::vector<GenerationAge> ages = HeatOfBlocks(view, range, kBlock);
  absl::optional<UndeliveredPagesIn> dirty;
  if (order == SplitOrder::kHottestDirtyFirst) dirty.emplace(vm, range);
  size_t block = 0;
  ForEachBlock(range, [&](GfnRange part) {
    AddBlock(runs, {.dirty = dirty.has_value() && dirty->HasAny(part),
                    .age = ages[block++],
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
  const GenerationView view =
      working_set != nullptr ? working_set->View() : GenerationView();
  if (view.newest == 0) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     {Reason::kNoGeneration, "order", ENODATA},
                     "the order, or the age of cold memory, needs a working "
                     "set, and the VM's has no generation yet; make one with "
                     "CreateGeneration, or switch the ager on");
  }
  std::vector<Run> runs;
  for (const GfnRange range : ranges) AddRuns(vm, view, range, order, runs);
  if (cold_after.has_value()) {
    const GenerationAge cold =
        FirstColdAge(*working_set, view.newest, *cold_after);
    std::erase_if(runs, [&](const Run& run) {
      if (run.age < cold) return false;
      ordered.cold_pages += run.range.pages();
      return true;
    });
  }
  Sort(order, runs);
  for (const Run& run : runs) ordered.ranges.push_back(run.range);
  return ordered;
}

}  // namespace mmu
