#include "mmu_core/tlb/tlbi.h"

#include <cstdint>

namespace mmu {

TlbFlush TlbiUnit::Issue(const TlbFlush& flush) {
  if (flush.entry_pages != 0) {
    Add(TlbiKind::kIpa, flush.gfns.pages() / flush.entry_pages);
    Add(TlbiKind::kStage1, 1);
    return flush;
  }
  // Whole granules: a gfn may be a part of one.
  const uint64_t first = flush.gfns.start.value() >> shift_;
  const uint64_t end =
      (flush.gfns.end.value() + (uint64_t{1} << shift_) - 1) >> shift_;
  if (!has_ranges() || flush.CoversAllGfns() ||
      end - first > kTlbiMaxGranules) {
    Add(TlbiKind::kVmid, 1);
    TlbFlush all;
    all.mmu = flush.mmu;
    return all;
  }
  ForEachTlbi(first, end - first, [this](uint64_t, uint64_t granules) {
    Add(granules == 1 ? TlbiKind::kIpa : TlbiKind::kIpaRange, 1);
  });
  Add(TlbiKind::kStage1, 1);
  TlbFlush ranges = flush;
  ranges.gfns = {Gfn(first << shift_), Gfn(end << shift_)};
  return ranges;
}

}  // namespace mmu
