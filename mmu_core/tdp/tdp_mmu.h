// The TDP MMU: direct second-stage tables for one VM, changed by many threads.
//
// The files:
//   tdp_fault.cc     mapping a page on a fault, the fast page fault
//   tdp_zap.cc       roots, zapping leafs, ranges and whole roots
//   tdp_log.cc       write protection and clear-dirty for dirty logging
//   tdp_split.cc     splitting huge pages
//   tdp_recover.cc   putting huge pages back together
//   tdp_nx.cc        the NX huge page mitigation
//   tdp_age.cc       Accessed bits
//   spte_update.h    the common part of every change of an entry
//
// A function that needs mmu_lock takes a witness of the required mode. A
// function that may yield takes the witness by non-const reference, and drops
// and re-takes the lock in the same mode (LCK-02). See mmu_core/LOCKING.md for
// the table.

#ifndef MMU_CORE_TDP_TDP_MMU_H_
#define MMU_CORE_TDP_TDP_MMU_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/huge_page_outcomes.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/mmu/write_gate.h"
#include "mmu_core/mmu/yield_point.h"
#include "mmu_core/paging/known_leaf_count.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/hold_limit.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/tdp/spte_update.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// The parts of the VM that the MMU uses; all must outlive it.
struct TdpParts {
  const SpteFormat& format;
  MmuLock& lock;
  MmuTlb tlb;
  TablePool& pool;
  MmuCounters& counters;
  const InvalidationGate& invalidations;
  NxHugePages& nx_huge_pages;
  // Consulted before a leaf becomes writable. Null: the VM never has shadow
  // pages.
  WriteGate* write_gate = nullptr;
};

struct TdpOptions {
  Level root_level = Level::k512G;       // k512G (4 levels) or k256T (5)
  Level max_page_level = kMaxLeafLevel;  // largest leaf (TRM-03, PF-31)
};

// Thread-safe under the locks that the functions' witnesses name.
class TdpMmu {
 public:
  // The tables that a fault may need: one per level below the root (TDP-43).
  static constexpr int kTablesPerFault = 4;

  TdpMmu(const TdpParts& parts, const TdpOptions& options);
  // Zaps everything (TDP-36). REQUIRES: no vCPU holds a root.
  ~TdpMmu();
  TdpMmu(const TdpMmu&) = delete;
  TdpMmu& operator=(const TdpMmu&) = delete;

  const SpteFormat& format() const { return parts_.format; }
  const TdpOptions& options() const { return options_; }

  // --- Roots (tdp_zap.cc) ---

  // The root for a vCPU of address space `as_id`, created if there is no valid
  // one (TDP-02). Takes mmu_lock for read itself. Fails if `cache` cannot
  // provide a table.
  absl::StatusOr<RootRef> LoadRoot(int as_id, TableCache& cache);

  // Zaps the whole VM quickly (TDP-33): invalidates every root, asks the vCPUs
  // to load new ones, then empties the old ones under the lock in read mode. On
  // return no old SPTE remains and no old TLB entry is used any more. REQUIRES:
  // slots_lock.
  void FastZapAll(MmuCost* cost, LockOp op = LockOp::kZap);

  // --- Faults (tdp_fault.cc) ---

  // Tries to grant the access that `fault` wants by giving an existing SPTE
  // more permission, without any lock (PF-10..18). kInvalid: take the slow
  // path.
  FaultResult FastFault(const TdpRoot& root, PageFault& fault);

  // Maps the page (TDP-41..46). For a fault without a slot it installs an MMIO
  // SPTE and returns kEmulate. kWriteProtected: the page is mapped, but the
  // guest wants to write to a page that the write gate keeps read-only
  // (SHD-44). REQUIRES: `fault` is resolved, `root` is valid, the invalidation
  // check passed under this `lock` (PF-25), `cache` holds kTablesPerFault
  // tables.
  FaultResult Map(const MmuReadLocked& lock, const TdpRoot& root,
                  PageFault& fault, TableCache& cache);

  // --- Zapping (tdp_zap.cc) ---

  // Zaps every leaf in or overlapping `range`, in the valid roots of `as_id` or
  // in all its roots. Flushes before it yields, and once at the end if it
  // zapped anything (TDP-37). Tables stay. True if anything was zapped.
  bool ZapLeafs(MmuWriteLocked& lock, int as_id, GfnRange range,
                RootFilter filter, FlushReason reason, MmuCost* cost,
                MayYield may_yield = MayYield::kYes);

  // --- Dirty logging (tdp_log.cc) ---

  // Clears W in every leaf of at least `min_level` in `range` (TDP-50). The
  // caller flushes before any code relies on the protection. True if anything
  // changed. In this and the following functions no hold of the lock exceeds
  // `limit`.
  bool WriteProtect(MmuReadLocked& lock, int as_id, GfnRange range,
                    Level min_level, MmuCost* cost,
                    const HoldLimit& limit = {});
  // Clears D in every leaf in `range`, or W where there are no Dirty bits
  // (TDP-51). Otherwise like WriteProtect.
  bool ClearDirty(MmuReadLocked& lock, int as_id, GfnRange range, MmuCost* cost,
                  const HoldLimit& limit = {});
  // Clears W and MMU-writable in the leaf of at least `min_level` that maps
  // `gfn` in each valid root (TDP-56). True if something changed: the caller
  // must flush before it drops the lock.
  bool WriteProtectGfn(const MmuWriteLocked& lock, int as_id, Gfn gfn,
                       Level min_level);
  // Clears W in the 4K leafs of the pages `first + i` whose bit i is set in
  // `mask` (TDP-55). Does not change huge leafs. The caller flushes. True if
  // anything changed.
  bool WriteProtectMasked(const MmuWriteLocked& lock, int as_id, Gfn first,
                          uint64_t mask, MmuCost* cost);
  // The same for D, or W where there are no Dirty bits.
  bool ClearDirtyMasked(const MmuWriteLocked& lock, int as_id, Gfn first,
                        uint64_t mask, MmuCost* cost);

  // --- Huge pages ---

  // Splits the huge leafs that overlap `range` down to `target`, without a TLB
  // flush (TDP-60..66). Tables come from `cache`; when it is empty the lock is
  // dropped to fill it. Stops early, and returns the position, if
  // `deadline_nanos` (of the monotonic clock, 0: none) passed and at least one
  // entry was done, or if there is no memory for a table.
  SplitOutcome Split(MmuReadLocked& lock, int as_id, GfnRange range,
                     Level target, SplitTrigger trigger, TableCache& cache,
                     int64_t deadline_nanos, MmuCost* cost,
                     const HoldLimit& limit = {});
  SplitOutcome Split(MmuWriteLocked& lock, int as_id, GfnRange range,
                     Level target, SplitTrigger trigger, TableCache& cache,
                     int64_t deadline_nanos, MmuCost* cost,
                     const HoldLimit& limit = {});

  // Replaces tables by the huge leafs that they were split from, wherever slot
  // and host allow that (TDP-52). Keeps a table if the host is invalidating a
  // page that the huge leaf would map. One flush at the end or before a yield.
  // REQUIRES: `slot` does not log dirty pages; slots_lock.
  RecoverOutcome Recover(MmuReadLocked& lock, const Memslot& slot,
                         GfnRange range, MmuCost* cost,
                         const HoldLimit& limit = {});

  // --- The NX huge page mitigation (tdp_nx.cc) ---

  // Takes the `max_tables` oldest tables off the list and zaps them, so that a
  // huge page can be mapped again. Tables for which `keep` is true (in a slot
  // that logs a page could not be huge) are only taken off. One flush at the
  // end or before a yield. Returns the number of zapped tables (SPTE-53).
  uint64_t RecoverNxHugePages(MmuReadLocked& lock, uint64_t max_tables,
                              absl::FunctionRef<bool(const ShadowPage&)> keep,
                              MmuCost* cost);
  // Unlinks `page` if the entry that it was linked to still points at it.
  // False: another thread made it point elsewhere (TDP-40). REQUIRES: an
  // RCU read section, in which `page` was listed in TdpParts::nx_huge_pages.
  bool ZapNxTable(const MmuReadLocked& lock, ShadowPage& page);

  // --- Aging (tdp_age.cc) ---

  // Tests, or tests and clears, the Accessed bits of the leafs in `range`, and
  // adds the young and mapped pages to `result`, whose bitmaps (`mapped` may be
  // empty) cover `range`. No lock, no flush (AGE-13, AGE-16).
  void Age(int as_id, GfnRange range, AgeMode mode, AgeScan scan,
           AgeResult& result, MmuCost* cost) const;

  // For the auditor.
  const RootList& roots() const { return roots_; }

 private:
  template <typename Lock>
  SplitOutcome SplitRange(Lock& lock, int as_id, GfnRange range, Level target,
                          SplitTrigger trigger, TableCache& cache,
                          int64_t deadline_nanos, MmuCost* cost,
                          const HoldLimit& limit);
  // `fault`, if given, is the fault that needs the small pages.
  template <typename Lock>
  bool SplitLeaf(const Lock& lock, TdpCursor& cursor, TableCache& cache,
                 SplitTrigger trigger, const PageFault* fault = nullptr);
  // Clears `bit`, which only leafs may lose, in every leaf of at least
  // `min_level` in `range` of the valid roots. True if anything changed.
  bool TakeFromLeafs(MmuReadLocked& lock, int as_id, GfnRange range,
                     Level min_level, uint64_t bit, MmuCost* cost,
                     const HoldLimit& limit);
  bool TakeMasked(const MmuWriteLocked& lock, int as_id, Gfn first,
                  uint64_t mask, uint64_t bit, MmuCost* cost);
  // The bit that a leaf loses for dirty logging: D, so that the next write is
  // detected without a fault, or W if there are no Dirty bits.
  uint64_t dirty_bit() const {
    return parts_.format.has_ad() ? parts_.format.dirty_mask()
                                  : spte_bits::kWrite;
  }

  // Replaces the tables at `level` within `range` by the huge leafs that they
  // were split from; returns their number.
  uint64_t CollapseTables(MmuReadLocked& lock, const TdpRoot& root,
                          const Memslot& slot, GfnRange range, Level level,
                          YieldPoint<MmuReadLocked>& yield,
                          TlbFlushBatch& batch, MmuCost* cost);

  // Whether the cursor's entry must not become a huge page: its table holds
  // pages that the guest executes (SPTE-52).
  bool HoldsDisallowedTable(const TdpCursor& cursor) const;
  // Called before `page` is linked for `fault`.
  static void MarkDisallowed(const PageFault& fault, ShadowPage& page);
  // Called after `page` was linked for `fault` to an entry of `level`
  // (SPTE-51).
  void TrackDisallowed(const PageFault& fault, Level level, ShadowPage& page);
  Executable ExecutableAt(Level level) const {
    return level > Level::k4K && parts_.nx_huge_pages.mitigated()
               ? Executable::kNo
               : Executable::kYes;
  }
  FaultResult InstallLeaf(const MmuReadLocked& lock, TdpCursor& cursor,
                          PageFault& fault);
  FaultResult InstallMmio(const MmuReadLocked& lock, TdpCursor& cursor,
                          PageFault& fault);
  void ZapRoot(MmuReadLocked& lock, TdpRoot& root);
  void ZapInvalidatedRoots(MmuReadLocked& lock);

  const TdpParts parts_;
  const TdpOptions options_;
  SpteUpdater updater_;
  RootList roots_;
  mutable LeafCountTokens age_tokens_;
};

}  // namespace mmu

#endif  // MMU_CORE_TDP_TDP_MMU_H_
