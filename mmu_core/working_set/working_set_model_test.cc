// Random scans, and slots that come, go and move, against a map from each page
// to the last generation that found it young. The test runs for more
// generations than a byte can tell apart.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/working_set/generation_age.h"
#include "mmu_core/working_set/hot_ranges.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {
namespace {

constexpr uint64_t kGenerations = 700;
constexpr uint64_t kEndGfn = 6000;

class Model {
 public:
  explicit Model(uint64_t seed) : random_(seed) {}

  void Run() {
    for (uint64_t i = 1; i <= kGenerations; ++i) {
      // In most generations little is young and no slot changes, so that pages
      // grow older than a byte can tell.
      is_busy_ = i % 300 < 40;
      if (is_busy_ && Below(3) == 0) ChangeSlots();
      Scan();
      CheckBins();
      if (i % 5 == 0) CheckLists();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

 private:
  uint64_t Below(uint64_t n) { return random_() % n; }

  GenerationAge AgeOf(Gfn gfn) const {
    const auto it = last_.find(gfn);
    if (it == last_.end()) return kNeverYoung;
    return static_cast<GenerationAge>(
        std::min<uint64_t>(newest_ - it->second, kMaxGenerationAge));
  }

  bool IsFree(GfnRange range) const {
    return range.end <= Gfn(kEndGfn) &&
           std::none_of(slots_.begin(), slots_.end(), [&](const auto& slot) {
             return slot.range.Overlaps(range);
           });
  }

  // The pages of a slot that goes leave the model.
  std::map<Gfn, uint64_t> Take(GfnRange range) {
    const auto first = last_.lower_bound(range.start);
    const auto end = last_.lower_bound(range.end);
    std::map<Gfn, uint64_t> taken(first, end);
    last_.erase(first, end);
    return taken;
  }

  // Deletes, moves, recreates or creates a slot.
  void ChangeSlots() {
    const uint64_t kind = Below(4);
    if (kind < 3 && !slots_.empty()) {
      const size_t i = Below(slots_.size());
      TrackedSlot slot = slots_[i];
      slots_.erase(slots_.begin() + static_cast<std::ptrdiff_t>(i));
      const std::map<Gfn, uint64_t> pages = Take(slot.range);
      if (kind == 1) {
        const auto moved =
            GfnRange::Of(Gfn(Below(kEndGfn)), slot.range.pages());
        const Gfn before = slot.range.start;
        if (IsFree(moved)) slot.range = moved;
        for (const auto& [gfn, sequence] : pages) {
          last_[slot.range.start + (gfn - before)] = sequence;
        }
        slots_.push_back(slot);
      } else if (kind == 2) {
        slot.uid = ++uids_;
        slots_.push_back(slot);
      }
    } else {
      const uint64_t pages = Below(3) == 0 ? 1 : 1 + Below(2000);
      const auto range = GfnRange::Of(Gfn(Below(kEndGfn)), pages);
      if (IsFree(range)) {
        slots_.push_back({static_cast<uint32_t>(uids_ + 1), uids_ + 1, range});
        ++uids_;
      }
    }
    ASSERT_EQ(set_.SyncSlots(slots_), absl::OkStatus());
  }

  void Scan() {
    newest_ = set_.Begin(now_ += 10);
    const uint64_t ranges = Below(4);
    for (uint64_t i = 0; i < ranges; ++i) {
      const Gfn start(is_busy_ ? Below(kEndGfn) : Below(kEndGfn / 20));
      const GfnRange range =
          GfnRange::Of(start, Below(is_busy_ && i == 0 ? 2000 : 70));
      if (Below(5) == 0) {
        set_.RecordAll(range);
        for (Gfn gfn = range.start; gfn < range.end; gfn += 1) SetYoung(gfn);
        continue;
      }
      const Gfn first_gfn =
          start - Below(std::min<uint64_t>(start.value() + 1, 200));
      std::vector<uint64_t> young(WordsFor(range.end - first_gfn));
      for (uint64_t& word : young) {
        const uint64_t kind = Below(5);
        word = kind < 2    ? 0
               : kind == 2 ? ~uint64_t{0}
               : kind == 3 ? BitOf(Below(64))
                           : random_();
      }
      set_.Record(range, young, first_gfn);
      for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
        const uint64_t bit = gfn - first_gfn;
        if ((young[bit / kWordBits] & BitOf(bit)) != 0) SetYoung(gfn);
      }
    }
    totals_ = {Below(100), Below(kEndGfn), static_cast<uint32_t>(Below(4))};
    set_.End(now_ += 5, totals_);
  }

  void SetYoung(Gfn gfn) {
    for (const TrackedSlot& slot : slots_) {
      if (slot.range.Contains(gfn)) last_[gfn] = newest_;
    }
  }

  void CheckBins() const {
    uint64_t in_slots = 0;
    for (const TrackedSlot& slot : slots_) in_slots += slot.range.pages();
    std::vector<WorkingSetBin> expected;
    for (uint64_t age = 0; age < std::min(newest_, kKeptGenerations); ++age) {
      const auto begin = static_cast<int64_t>(15 * (newest_ - age) - 5);
      WorkingSetBin bin{newest_ - age, 0, now_ - (begin + 5),
                        now_ - begin + 15};
      expected.push_back(bin);
    }
    expected.back().max_age_nanos.reset();
    for (const auto& [gfn, sequence] : last_) ++expected[AgeOf(gfn)].pages;
    const std::vector<int64_t> windows = {15 * 10 + 1};
    const WorkingSetSnapshot snapshot = set_.TakeSnapshot(now_, windows);
    ASSERT_EQ(snapshot.bins, expected);
    ASSERT_EQ(snapshot.never_young_pages, in_slots - last_.size());
    ASSERT_EQ(snapshot.generations[0],
              (Generation{newest_, now_ - 5, now_, totals_}));
    uint64_t in_window = 0;
    for (const auto& [gfn, sequence] : last_) {
      in_window += sequence + 10 >= newest_;
    }
    ASSERT_EQ(snapshot.windows[0],
              (WorkingSetWindow{151, in_window, newest_ > 11}));
  }

  // The extents in the order of their gfns, from the ages of single pages.
  std::vector<HeatExtent> Extents(Level unit) {
    std::sort(slots_.begin(), slots_.end(), [](const auto& a, const auto& b) {
      return a.range.start < b.range.start;
    });
    std::vector<HeatExtent> extents;
    for (const TrackedSlot& slot : slots_) {
      for (Gfn gfn = slot.range.start; gfn < slot.range.end;) {
        const Gfn end =
            std::min(slot.range.end, RoundDown(gfn, unit) + PagesPer(unit));
        GenerationAge age = kNeverYoung;
        for (Gfn page = gfn; page < end; page += 1) {
          age = std::min(age, AgeOf(page));
        }
        if (!extents.empty() && extents.back().slot == slot.id &&
            extents.back().age == age) {
          extents.back().range.end = end;
        } else {
          extents.push_back({slot.id,
                             {gfn, end},
                             age,
                             age == kNeverYoung ? 0 : newest_ - age});
        }
        gfn = end;
      }
    }
    return extents;
  }

  void CheckLists() {
    const GenerationView view = set_.View();
    for (const Level unit : {Level::k4K, Level::k2M}) {
      std::vector<HeatExtent> expected = Extents(unit);
      const bool hottest = Below(2) == 0;
      std::stable_sort(expected.begin(), expected.end(),
                       [&](const HeatExtent& a, const HeatExtent& b) {
                         return hottest ? a.age < b.age : a.age > b.age;
                       });
      HeatQuery query;
      query.order =
          hottest ? HeatOrder::kHottestFirst : HeatOrder::kColdestFirst;
      query.unit = unit;
      if (Below(2) == 0) {
        query.never_young = NeverYoungMemory::kExclude;
        std::erase_if(expected, [](const HeatExtent& extent) {
          return extent.age == kNeverYoung;
        });
      }
      std::vector<HeatExtent> listed;
      do {
        query.limit = 1 + Below(1 + expected.size());
        const HeatList list = ListHotRanges(view, query);
        listed.insert(listed.end(), list.extents.begin(), list.extents.end());
        query.from = list.next;
      } while (query.from.has_value());
      ASSERT_EQ(listed, expected);
    }
    const GfnRange range = GfnRange::Of(Gfn(Below(kEndGfn)), 1 + Below(2000));
    std::vector<GenerationAge> heat(
        (RoundUp(range.end, Level::k2M) - RoundDown(range.start, Level::k2M)) /
            512,
        kNeverYoung);
    for (Gfn gfn = range.start; gfn < range.end; gfn += 1) {
      GenerationAge& block =
          heat[(gfn.value() >> 9) - (range.start.value() >> 9)];
      block = std::min(block, AgeOf(gfn));
    }
    ASSERT_EQ(HeatOfBlocks(view, range, Level::k2M), heat);
  }

  std::mt19937_64 random_;
  WorkingSet set_;
  std::vector<TrackedSlot> slots_;
  bool is_busy_ = false;
  uint64_t uids_ = 0;
  uint64_t newest_ = 0;
  int64_t now_ = 0;
  GenerationTotals totals_;
  std::map<Gfn, uint64_t> last_;
};

TEST(WorkingSetModelTest, WorkingSetAgreesWithTheLastGenerationOfEachPage) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    Model(seed).Run();
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace mmu
