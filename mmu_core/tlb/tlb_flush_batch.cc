#include "mmu_core/tlb/tlb_flush_batch.h"

#include <algorithm>
#include <utility>

#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"

namespace mmu {

TlbFlushBatch::~TlbFlushBatch() { MMU_DCHECK(!pending()); }

TlbFlushBatch::TlbFlushBatch(TlbFlushBatch&& other) noexcept
    : tlb_(other.tlb_),
      scope_(other.scope_),
      reason_(other.reason_),
      range_(std::exchange(other.range_, GfnRange())),
      depth_(other.depth_),
      leaf_pages_(other.leaf_pages_) {}

TlbFlushBatch& TlbFlushBatch::operator=(TlbFlushBatch&& other) noexcept {
  if (this == &other) return *this;
  MMU_DCHECK(!pending());
  tlb_ = other.tlb_;
  scope_ = other.scope_;
  reason_ = other.reason_;
  range_ = std::exchange(other.range_, GfnRange());
  depth_ = other.depth_;
  leaf_pages_ = other.leaf_pages_;
  return *this;
}

void TlbFlushBatch::Add(GfnRange range, FlushDepth depth) {
  if (range.empty()) return;
  leaf_pages_ = 0;
  if (!pending()) {
    range_ = range;
    depth_ = depth;
    return;
  }
  range_.start = std::min(range_.start, range.start);
  range_.end = std::max(range_.end, range.end);
  depth_ = std::max(depth_, depth);
}

void TlbFlushBatch::AddLeaf(GfnRange range) {
  const bool first = !pending();
  Add(range);
  if (first) leaf_pages_ = range.pages();
}

void TlbFlushBatch::AddItsTable() {
  MMU_DCHECK(pending());
  depth_ = FlushDepth::kTables;
}

void TlbFlushBatch::Flush(MmuCost* cost) {
  if (!pending()) {
    tlb_.remote().CountElided(reason_);
  } else if (scope_ == FlushScope::kVm) {
    FlushEverything(cost);
  } else {
    Issue(scope_,
          {.mmu = tlb_.covers(),
           .gfns = range_,
           .depth = depth_,
           .entry_pages = leaf_pages_},
          cost);
  }
}

void TlbFlushBatch::FlushAlways(GfnRange range, MmuCost* cost) {
  MMU_DCHECK(!range.empty());
  Add(range);
  Flush(cost);
}

void TlbFlushBatch::FlushEverything(MmuCost* cost) {
  Issue(FlushScope::kVm,
        {.mmu = tlb_.covers(), .gfns = kAllGfns, .depth = FlushDepth::kTables},
        cost);
}

void TlbFlushBatch::Issue(FlushScope scope, const TlbFlush& flush,
                          MmuCost* cost) {
  range_ = GfnRange();
  if (ShouldSkipFlush != nullptr && ShouldSkipFlush(reason_)) return;
  TlbFlush altered = flush;
  if (AlterFlush != nullptr) AlterFlush(reason_, altered);
  tlb_.remote().Flush(tlb_.mmu(), scope, reason_, altered, cost);
}

// `why` only documents the call.
void TlbFlushBatch::Discard(FlushDiscard /*why*/) { range_ = GfnRange(); }

}  // namespace mmu
