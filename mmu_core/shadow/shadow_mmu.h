// The shadow MMU of one VM: all its parts together.
//
// The files:
//   shadow_page_state.h  shadow pages and their states
//   shadow_pages.h       making pages, and their limit
//   shadow_links.h       entries: children and leafs
//   shadow_zap.h         zapping and freeing pages
//   shadow_leaf.h        making a leaf SPTE
//   shadow_faults.h      mapping a page on a fault
//   shadow_roots.h       the roots of a vCPU (one per vCPU)
//   write_tracking.h, unsync_gate.h, unsync_marks.h, shadow_sync.h,
//   guest_pte_writes.h   the guest writes to its tables
//   shadow_log.h, shadow_split.h, shadow_recover.h, shadow_age.h,
//   shadow_unmap.h       a memslot or a range of gfns, by reverse maps
//   shadow_audit.h       the invariants
//
// The path of a fault through these parts: vm/vcpu/shadow_vcpu.h.

#ifndef MMU_CORE_SHADOW_SHADOW_MMU_H_
#define MMU_CORE_SHADOW_SHADOW_MMU_H_

#include "mmu_core/base/level.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/guest_pte_writes.h"
#include "mmu_core/shadow/shadow_age.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_faults.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_log.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_recover.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/shadow/shadow_split.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/shadow/shadow_unmap.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/sync/refill.h"

namespace mmu {

// Thread-safe like its parts.
class ShadowMmu {
 public:
  struct Options {
    TdpEnabled tdp = TdpEnabled::kNo;
    Level max_page_level = kMaxLeafLevel;  // largest leaf of the hardware
    // CPUs log by themselves (PML), so leafs of L2 must not use D (DL-33).
    DirtyTracking nested_dirty_tracking = DirtyTracking::kOfFormat;
    NxHugePages* nx_huge_pages = nullptr;  // null: no mitigation
    // Null: host memory is never invalidated.
    const InvalidationGate* invalidations = nullptr;
  };
  // Everything that `parts` refers to, `mmu_lock` and `pools` outlive this.
  ShadowMmu(const ShadowParts& parts, MmuLock& mmu_lock,
            const ShadowPools& pools, const Options& options)
      : parts_(parts),
        mmu_lock_(mmu_lock),
        pools_(pools),
        pages_(parts, options.tdp,
               options.nx_huge_pages == nullptr
                   ? nullptr
                   : &options.nx_huge_pages->of(MmuKind::kShadow)),
        gate_(pages_.set(), pages_.unsync()),
        leafs_(parts, gate_,
               {.nested_dirty_tracking = options.nested_dirty_tracking,
                .nx_huge_pages = options.nx_huge_pages}),
        sync_(parts, pages_, leafs_),
        pte_writes_(parts, mmu_lock, pages_),
        faults_(parts, pages_, leafs_, sync_,
                {.max_page_level = options.max_page_level,
                 .nx_huge_pages = options.nx_huge_pages,
                 .invalidations = options.invalidations}),
        log_(parts),
        unmap_(parts, pages_.set(), pages_.links(), pages_.zap()),
        age_(parts),
        split_(parts, pages_,
               {.tdp = options.tdp, .nx_huge_pages = options.nx_huge_pages}),
        recover_(parts, pages_.links(), options.max_page_level),
        split_caches_(pools) {}
  // REQUIRES: all vCPUs' roots are gone. Takes mmu_lock. On return all tables
  // are back in their pools.
  ~ShadowMmu() {
    {
      const Reclaim reclaim;
      MmuWriteLocked lock(mmu_lock_, LockOp::kZap);
      pages_.zap().ZapAll(lock, nullptr);
    }
    RcuBarrier();
  }
  ShadowMmu(const ShadowMmu&) = delete;
  ShadowMmu& operator=(const ShadowMmu&) = delete;

  const ShadowParts& parts() const { return parts_; }
  const ShadowPools& pools() const { return pools_; }
  ShadowPages& pages() { return pages_; }
  const ShadowPages& pages() const { return pages_; }
  UnsyncGate& gate() { return gate_; }
  ShadowLeafs& leafs() { return leafs_; }
  ShadowSync& sync() { return sync_; }
  GuestPteWrites& pte_writes() { return pte_writes_; }
  ShadowFaults& faults() { return faults_; }
  ShadowLog& log() { return log_; }
  ShadowUnmap& unmap() { return unmap_; }
  const ShadowAge& age() const { return age_; }
  ShadowSplit& split() { return split_; }
  ShadowRecover& recover() { return recover_; }
  // For the eager splits of the whole VM (SHD-75). Used only under slots_lock
  // (LCK-05).
  ShadowCaches& split_caches() { return split_caches_; }

  // The parts from which a vCPU's roots are made.
  ShadowRoots::Parts RootParts() {
    return {.shadow = parts_,
            .mmu_lock = mmu_lock_,
            .pages = pages_,
            .sync = sync_,
            .tables = pools_.tables};
  }

 private:
  const ShadowParts parts_;
  MmuLock& mmu_lock_;
  const ShadowPools pools_;
  ShadowPages pages_;
  UnsyncGate gate_;
  ShadowLeafs leafs_;
  ShadowSync sync_;
  GuestPteWrites pte_writes_;
  ShadowFaults faults_;
  ShadowLog log_;
  ShadowUnmap unmap_;
  ShadowAge age_;
  ShadowSplit split_;
  ShadowRecover recover_;
  ShadowCaches split_caches_;
};

}  // namespace mmu

#endif  // MMU_CORE_SHADOW_SHADOW_MMU_H_
