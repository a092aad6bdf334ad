// A batch of pending TLB flushes. Every remote TLB flush goes through a batch,
// and debug builds check that none is forgotten.

#ifndef MMU_CORE_TLB_TLB_FLUSH_BATCH_H_
#define MMU_CORE_TLB_TLB_FLUSH_BATCH_H_

#include <cstdint>

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {

// Why a pending flush may be dropped.
enum class FlushDiscard {
  kCallerFlushes,    // a flush that is issued in any case follows (TLB-09)
  kRootUnreachable,  // no vCPU can use the root any more (TLB-07)
};

// States: clean, or pending after Add. Flush, FlushAlways and Discard make the
// batch clean again, after which it may be reused (a walk flushes before each
// yield and continues). Destroying or overwriting a pending batch is a bug
// (checked in debug builds). A moved-from batch is clean.
// Externally synchronised: belongs to one thread at a time.
class [[nodiscard]] TlbFlushBatch {
 public:
  // Of one MMU.
  TlbFlushBatch(MmuTlb tlb, FlushScope scope, FlushReason reason)
      : tlb_(tlb), scope_(scope), reason_(reason) {}
  // Of all MMUs that may have changed something (RemoteTlb::OfGuest).
  TlbFlushBatch(RemoteTlb& remote, FlushScope scope, FlushReason reason)
      : TlbFlushBatch(remote.OfGuest(), scope, reason) {}
  ~TlbFlushBatch();
  TlbFlushBatch(TlbFlushBatch&& other) noexcept;
  TlbFlushBatch& operator=(TlbFlushBatch&& other) noexcept;

  // Records that vCPUs may hold stale translations of `range`. With kTables
  // they may also hold pointers to tables that were unlinked there. An empty
  // range adds nothing.
  void Add(GfnRange range, FlushDepth depth = FlushDepth::kLeafs);
  // The same for the one leaf that maps `range`. If nothing else is added, the
  // flush is of leafs of that size only.
  void AddLeaf(GfnRange range);
  // The table that had what was added last was unlinked, too. REQUIRES:
  // pending.
  void AddItsTable();
  bool pending() const { return !range_.empty(); }
  // The smallest range that covers all added ranges; empty if clean.
  GfnRange range() const { return range_; }

  // Issues one remote flush of the range (of everything with FlushScope::kVm)
  // if pending; otherwise counts an elided one. `cost` may be null.
  void Flush(MmuCost* cost);
  // Issues one remote flush of `range` and of the ranges added before, whether
  // something is pending or not (DL-02).
  void FlushAlways(GfnRange range, MmuCost* cost);
  // Issues one remote flush of everything, counted as FlushScope::kVm, whether
  // something is pending or not.
  void FlushEverything(MmuCost* cost);
  // Drops the pending flush.
  void Discard(FlushDiscard why);

 private:
  void Issue(FlushScope scope, const TlbFlush& flush, MmuCost* cost);

  MmuTlb tlb_;
  FlushScope scope_;
  FlushReason reason_;
  GfnRange range_;
  FlushDepth depth_ = FlushDepth::kLeafs;
  uint64_t leaf_pages_ = 0;  // not 0: only one leaf of this size was added
};

// A seam for tests of the effects of a missing flush; other programs need not
// define it. If it returns true, the batch becomes clean as if flushed, but no
// vCPU is asked to flush.
__attribute__((weak)) bool ShouldSkipFlush(FlushReason reason);
// A seam for tests of the effects of a flush that covers too little. Called
// with each flush, which it may change.
__attribute__((weak)) void AlterFlush(FlushReason reason, TlbFlush& flush);

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLB_FLUSH_BATCH_H_
