#include "mmu_core/working_set/hot_ranges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/optional.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/working_set/age_run_joiner.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/generation_map.h"
#include "mmu_core/working_set/slot_maps.h"

namespace mmu {
namespace {

// The place of an age in the order of a list, from 0 to kNeverYoung.
using Rank = uint32_t;
constexpr Rank kEndRank = kNeverYoung + 1;

// In place of the ages that are not listed.
constexpr GenerationAge kUnlisted = kNeverYoung + 1;

Rank RankOf(HeatOrder order, GenerationAge age) {
  return order == HeatOrder::kHottestFirst ? Rank{age}
                                           : Rank{kNeverYoung} - age;
}

// Where a piece of a list begins.
struct Start {
  Rank rank = 0;
  Gfn gfn;
};

Start StartOf(const HeatQuery& query, uint64_t newest) {
  if (!query.from.has_value()) return {};
  const HeatPosition& from = *query.from;
  if (from.sequence == 0) {
    return {RankOf(query.order, kNeverYoung), from.gfn};
  }
  const uint64_t difference = newest - std::min(newest, from.sequence);
  if (difference > kMaxGenerationAge) {
    // The pages of later generations, too, have now this age. Coldest first,
    // they have not been listed yet, at whatever gfn they are.
    return {RankOf(query.order, kMaxGenerationAge),
            query.order == HeatOrder::kColdestFirst ? Gfn(0) : from.gfn};
  }
  return {RankOf(query.order, static_cast<GenerationAge>(difference)),
          from.gfn};
}

// Collects the first `limit` of many extents. They are added in ascending order
// of their gfns. When there are twice as many, the last half is dropped, so an
// extent costs constant time on average.
class FirstExtents {
 public:
  explicit FirstExtents(size_t limit) : limit_(limit) {}

  // REQUIRES: rank < end().
  void Add(Rank rank, const HeatExtent& extent) {
    kept_.push_back({rank, extent});
    if (kept_.size() / 2 >= limit_) DropRest();
  }

  // An extent of this rank or a higher one, if added now, is not among the
  // first.
  Rank end() const { return end_; }

  HeatList Finish() {
    if (kept_.size() > limit_) DropRest();
    std::sort(kept_.begin(), kept_.end());
    HeatList list;
    list.extents.reserve(kept_.size());
    for (const Ranked& ranked : kept_) list.extents.push_back(ranked.extent);
    if (end_ < kEndRank) {
      const HeatExtent& last = list.extents.back();
      list.next = HeatPosition{last.sequence, last.range.end};
    }
    return list;
  }

 private:
  struct Ranked {
    Rank rank;
    HeatExtent extent;

    friend bool operator<(const Ranked& a, const Ranked& b) {
      return std::pair(a.rank, a.extent.range.start) <
             std::pair(b.rank, b.extent.range.start);
    }
  };

  // REQUIRES: there are more than limit_.
  void DropRest() {
    const auto last = kept_.begin() + static_cast<std::ptrdiff_t>(limit_ - 1);
    std::nth_element(kept_.begin(), last, kept_.end());
    end_ = last->rank;
    kept_.erase(last + 1, kept_.end());
  }

  const size_t limit_;
  std::vector<Ranked> kept_;
  Rank end_ = kEndRank;  // until extents were dropped
};

// Calls fn(pages, age) for each unit that overlaps `part` of the slot, in
// ascending order, with the unit's pages in `part` and the age of the youngest.
template <typename Fn>
void ForEachUnit(const SlotMap& slot, GfnRange part, Level unit,
                 const GenerationAges& ages, Fn fn) {
  const Gfn base = slot.slot.range.start;
  for (Gfn gfn = part.start; gfn < part.end;) {
    const Gfn end = std::min(part.end, RoundDown(gfn, unit) + PagesPer(unit));
    fn(GfnRange{gfn, end}, slot.map->YoungestOf(gfn - base, end - base, ages));
    gfn = end;
  }
}

// Calls `fn` for the maximal runs of units of equal age, with the numbers of
// their pages in the slot.
void ForEachUnitRun(const SlotMap& slot, Level unit, const GenerationAges& ages,
                    AgeRunFn fn) {
  AgeRunJoiner runs(0, fn);
  ForEachUnit(slot, slot.slot.range, unit, ages,
              [&](GfnRange pages, GenerationAge age) {
                runs.Add(pages.end - slot.slot.range.start, age);
              });
  runs.Finish();
}

// Lists one piece.
class Lister {
 public:
  Lister(const HeatQuery& query, uint64_t newest)
      : query_(query),
        newest_(newest),
        start_(StartOf(query, newest)),
        ages_(newest),
        listed_ages_(newest),
        extents_(query.limit) {
    LeaveOutUnlisted();
  }

  void AddSlot(const SlotMap& slot) {
    const auto add = [&](uint64_t first, uint64_t end, GenerationAge age) {
      if (!IsListed(age)) return;
      const Gfn base = slot.slot.range.start;
      Add(slot.slot.id, {base + first, base + end}, age);
    };
    if (query_.unit == Level::k4K) {
      slot.map->ForEachRun(0, slot.map->npages(), listed_ages_, add);
    } else {
      ForEachUnitRun(slot, query_.unit, ages_, add);
    }
  }

  HeatList Finish() { return extents_.Finish(); }

 private:
  // Whether the piece may contain more extents of this age.
  bool IsListed(GenerationAge age) const {
    if (age == kUnlisted) return false;
    if (age == kNeverYoung &&
        query_.never_young == NeverYoungMemory::kExclude) {
      return false;
    }
    const Rank rank = RankOf(query_.order, age);
    return start_.rank <= rank && rank < extents_.end();
  }

  void LeaveOutUnlisted() {
    listed_ages_.ReplaceIf([this](GenerationAge age) { return !IsListed(age); },
                           kUnlisted);
  }

  void Add(uint32_t slot, GfnRange range, GenerationAge age) {
    const Rank rank = RankOf(query_.order, age);
    if (rank == start_.rank) range.start = std::max(range.start, start_.gfn);
    if (range.empty()) return;
    const Rank end = extents_.end();
    extents_.Add(rank, {slot, range, age,
                        age == kNeverYoung ? uint64_t{0} : newest_ - age});
    if (extents_.end() != end) LeaveOutUnlisted();
  }

  const HeatQuery& query_;
  const uint64_t newest_;
  const Start start_;
  const GenerationAges ages_;
  // The same, with kUnlisted in place of all ages that are not listed: a pass
  // over single pages then joins them, however often their ages change.
  GenerationAges listed_ages_;
  FirstExtents extents_;
};

}  // namespace

HeatList ListHotRanges(const GenerationView& view, const HeatQuery& query) {
  MMU_CHECK(query.limit > 0 && query.unit <= kMaxLeafLevel);
  Lister lister(query, view.newest);
  for (const SlotMap& slot : *view.slots) lister.AddSlot(slot);
  return lister.Finish();
}

std::vector<GenerationAge> HeatOfBlocks(const GenerationView& view,
                                        GfnRange range, Level block) {
  MMU_CHECK(block <= kMaxLeafLevel);
  if (range.empty()) return {};
  const Gfn first = RoundDown(range.start, block);
  const uint64_t count = (RoundUp(range.end, block) - first) / PagesPer(block);
  std::vector<GenerationAge> heat(count, kNeverYoung);
  const GenerationAges ages(view.newest);
  ForEachSlotIn(*view.slots, range, [&](const SlotMap& slot, GfnRange part) {
    ForEachUnit(slot, part, block, ages,
                [&](GfnRange pages, GenerationAge age) {
                  GenerationAge& youngest =
                      heat[(pages.start - first) / PagesPer(block)];
                  youngest = std::min(youngest, age);
                });
  });
  return heat;
}

}  // namespace mmu
