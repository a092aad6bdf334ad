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
      range_(std::exchange(other.range_, GfnRange())) {}

TlbFlushBatch& TlbFlushBatch::operator=(TlbFlushBatch&& other) noexcept {
  if (this == &other) return *this;
  MMU_DCHECK(!pending());
  tlb_ = other.tlb_;
  scope_ = other.scope_;
  reason_ = other.reason_;
  range_ = std::exchange(other.range_, GfnRange());
  return *this;
}

void TlbFlushBatch::Add(GfnRange range) {
  if (range.empty()) return;
  if (!pending()) {
    range_ = range;
    return;
  }
  range_.start = std::min(range_.start, range.start);
  range_.end = std::max(range_.end, range.end);
}

void TlbFlushBatch::Flush(MmuCost* cost) {
  if (pending()) {
    FlushAlways(cost);
  } else {
    tlb_.remote().CountElided(reason_);
  }
}

void TlbFlushBatch::FlushAlways(MmuCost* cost) {
  range_ = GfnRange();
  if (ShouldSkipFlush != nullptr && ShouldSkipFlush(reason_)) return;
  tlb_.remote().Flush(tlb_.mmu(), scope_, reason_, cost);
}

// `why` only documents the call.
void TlbFlushBatch::Discard(FlushDiscard /*why*/) { range_ = GfnRange(); }

}  // namespace mmu
