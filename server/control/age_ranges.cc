#include "server/control/age_ranges.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/vm/jobs/age_sweep.h"
#include "mmu_core/vm/vm.h"

namespace mmud {
namespace {

// Sets the bits of those units of `range` that have a young page in `piece`.
void SetUnits(const mmu::AgeSweep::Piece& piece, mmu::GfnRange range,
              uint64_t unit, std::string* bitmap) {
  const mmu::GfnRange both = piece.pages.Intersect(range);
  if (both.empty()) return;
  const uint64_t first = both.start - piece.pages.start;
  const uint64_t end = both.end - piece.pages.start;
  for (uint64_t word = first / 64; word * 64 < end; ++word) {
    const uint64_t bits =
        piece.result.young[word] & mmu::WordMask(word, first, end);
    for (const uint64_t bit : mmu::SetBitsOf(bits)) {
      const uint64_t page = word * 64 + bit;
      const uint64_t index = (piece.pages.start + page - range.start) / unit;
      (*bitmap)[index / 8] =
          static_cast<char>((*bitmap)[index / 8] | (1 << (index % 8)));
    }
  }
}

// Distributes the results of a sweep over the requested ranges, which may
// touch, overlap and be in any order.
class Distribution {
 public:
  Distribution(const std::vector<mmu::GfnRange>& ranges, uint64_t unit)
      : ranges_(ranges), unit_(unit), order_(ranges.size()) {
    for (const mmu::GfnRange& range : ranges) {
      bitmaps_.emplace_back((range.pages() / unit + 7) / 8, '\0');
    }
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      return ranges[a].start < ranges[b].start;
    });
  }

  // Called with pieces in ascending order.
  void Add(const mmu::AgeSweep::Piece& piece) {
    while (next_ < order_.size() &&
           ranges_[order_[next_]].start < piece.pages.end) {
      open_.push_back(order_[next_++]);
    }
    for (const size_t i : open_) {
      SetUnits(piece, ranges_[i], unit_, &bitmaps_[i]);
    }
    std::erase_if(open_,
                  [&](size_t i) { return ranges_[i].end <= piece.pages.end; });
  }
  std::string TakeBitmap(size_t range) { return std::move(bitmaps_[range]); }

 private:
  const std::vector<mmu::GfnRange>& ranges_;
  const uint64_t unit_;
  std::vector<std::string> bitmaps_;  // by range
  std::vector<size_t> order_;         // ranges by their start
  size_t next_ = 0;                   // into order_: the first range not begun
  std::vector<size_t> open_;          // ranges that are begun but not finished
};

}  // namespace

absl::StatusOr<AgedRanges> AgeRanges(ManagedVm& vm, const AgePlan& plan,
                                     const AgeCalls& calls) {
  AgedRanges aged;
  Distribution young(plan.ranges, mmu::PagesPer(plan.granularity));
  mmu::AgeSweep sweep =
      vm.vm().MakeAgeSweep(plan.ranges, plan.mode, plan.missing, plan.options);
  while (!sweep.done()) {
    if (absl::Status status = calls.keep_going(); !status.ok()) return status;
    const absl::StatusOr<mmu::AgeSweep::Piece> piece = sweep.Next(&aged.cost);
    if (!piece.ok()) return piece.status();
    calls.part_done();
    young.Add(*piece);
    aged.reach.Add(piece->result.reach);
    aged.young_page_count += piece->result.young_page_count;
    aged.old_page_count += piece->result.old_page_count;
  }
  for (size_t i = 0; i < plan.ranges.size(); ++i) {
    aged.bitmaps.push_back(young.TakeBitmap(i));
  }
  return aged;
}

}  // namespace mmud
