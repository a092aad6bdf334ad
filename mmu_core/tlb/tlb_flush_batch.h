// The choke point through which every remote TLB flush goes: it collects what
// must be flushed, and cannot be forgotten.

#ifndef MMU_CORE_TLB_TLB_FLUSH_BATCH_H_
#define MMU_CORE_TLB_TLB_FLUSH_BATCH_H_

#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/tlb/remote_flush.h"

namespace mmu {

// Why a pending flush may be dropped.
enum class FlushDiscard {
  kCallerFlushes,    // a flush that is issued in any case follows (TLB-09)
  kRootUnreachable,  // no vCPU can use the root any more (TLB-07)
};

// States: clean, or pending after Add. Flush, FlushAlways and Discard make it
// clean again; after that it may be used again (a walk flushes before each
// yield and goes on). Destroying or overwriting a pending batch is a bug
// (checked in debug builds). A moved-from batch is clean.
// Externally synchronised: belongs to one thread at a time.
class [[nodiscard]] TlbFlushBatch {
 public:
  TlbFlushBatch(RemoteTlb& remote, FlushScope scope, FlushReason reason)
      : remote_(&remote), scope_(scope), reason_(reason) {}
  ~TlbFlushBatch();
  TlbFlushBatch(TlbFlushBatch&& other) noexcept;
  TlbFlushBatch& operator=(TlbFlushBatch&& other) noexcept;

  // Vcpus may hold stale translations of `range`. An empty range adds nothing.
  void Add(GfnRange range);
  bool pending() const { return !range_.empty(); }
  // Smallest range that covers all that was added; empty if clean.
  GfnRange range() const { return range_; }

  // Issues one remote flush if pending; otherwise counts an elided one. `cost`
  // may be null.
  void Flush(MmuCost* cost);
  // Issues one remote flush, pending or not (DL-02).
  void FlushAlways(MmuCost* cost);
  // Forgets what is pending.
  void Discard(FlushDiscard why);

 private:
  RemoteTlb* remote_;
  FlushScope scope_;
  FlushReason reason_;
  GfnRange range_;
};

// A seam for tests that must see what a missing flush leads to; a program that
// does not define it loses nothing. True: the batch is clean, as if flushed,
// but no vCPU was asked to.
__attribute__((weak)) bool ShouldSkipFlush(FlushReason reason);

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLB_FLUSH_BATCH_H_
