// Shadow pages without a VM, for tests.

#ifndef MMU_CORE_TESTING_SHADOW_TEST_UTIL_H_
#define MMU_CORE_TESTING_SHADOW_TEST_UTIL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/shadow_audit_test_util.h"
#include "mmu_core/testing/shadow_slots_test_util.h"
#include "mmu_core/tlb/remote_flush.h"

namespace mmu::testing {

class FakeShadowVm : public ShadowTestSlots {
 public:
  void AddSlot(int as_id, GfnRange range) {
    auto slot = std::make_unique<Memslot>();
    slot->as_id = as_id;
    slot->hva = Hva(range.start.value() << kPageShift);
    Add(std::move(slot), range);
  }
  bool WriteProtectGfn(const MmuWriteLocked&, const Memslot& slot,
                       Gfn gfn) override {
    protected_gfns.push_back(gfn);
    protected_as_ids.push_back(slot.as_id);
    return other_mmus_change;
  }

  std::vector<Gfn> protected_gfns;  // requested, in this order
  std::vector<int> protected_as_ids;
  bool other_mmus_change = false;
};

// The role of indirect pages for a guest that uses its own tables of four
// levels or more.
inline PageRole IndirectRole(int level, AccessRights access = kAllRights) {
  return PageRole::Of(
      {.level = level, .access = access, .efer_nx = true, .cr0_wp = true});
}
inline PageRole DirectRole(int level, AccessRights access = kAllRights) {
  return PageRole::Of({.level = level,
                       .direct = true,
                       .access = access,
                       .efer_nx = true,
                       .cr0_wp = true});
}
// The role of pages that shadow L1's tables for L2.
inline PageRole NestedRole(int level) {
  return PageRole::Of({.level = level,
                       .access = kAllRights,
                       .efer_nx = true,
                       .cr0_wp = true,
                       .guest_mode = true});
}
inline PageRole PassthroughRole() {
  return PageRole::Of({.level = 5,
                       .access = kAllRights,
                       .efer_nx = true,
                       .cr0_wp = true,
                       .guest_mode = true,
                       .passthrough = true});
}

// A test that always holds mmu_lock in write mode. At its end it zaps
// everything, and checks that all memory was returned.
class ShadowFixture {
 protected:
  static constexpr uint64_t kSlotPages = uint64_t{2} << 18;  // 2 GiB

  explicit ShadowFixture(TdpEnabled tdp = TdpEnabled::kNo)
      : pages_(Parts(), tdp) {
    vm_.AddSlot(0, GfnRange::Of(Gfn(0), kSlotPages));
    TopUp();
  }
  ~ShadowFixture() {
    MMU_CHECK(AuditFindings().empty());
    pages_.zap().ZapAll(lock_, nullptr);
    MMU_CHECK(pages_.in_use() == 0);
    MMU_CHECK(ShadowCounters::Get(counters_.shadow.mmu_unsync) == 0);
    for (const Level level : {Level::k4K, Level::k2M, Level::k1G}) {
      MMU_CHECK(counters_.Leafs(level) == 0);
    }
    MMU_CHECK(!pages_.tracking().AnyIndirectPages());
    WaitForFrees();
    MMU_CHECK(TablesInUse() == 0);
    MMU_CHECK(static_cast<int>(states_.objects_out()) ==
              caches_.states.count());
    MMU_CHECK(static_cast<int>(translations_.objects_out()) ==
              caches_.translations.count());
    MMU_CHECK(static_cast<int>(lists_.Snapshot().descs_out) ==
              caches_.lists.count());
  }

  // Not analysed: the lock is held again at the end.
  template <typename Fn>
  void WithoutLock(Fn fn) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    lock_.Unlock();
    fn();
    lock_.Relock();
  }
  void TopUp() {
    WithoutLock([this] {
      MMU_CHECK(caches_.TryTopUpForSplit());
      MMU_CHECK(caches_.TopUpForFault(IndirectPages::kPossible).ok());
    });
  }
  // Waits until committed pages are freed.
  void WaitForFrees() {
    WithoutLock([] { RcuBarrier(); });
  }
  int TablesInUse() const {
    return static_cast<int>(tables_.tables_out()) - caches_.tables.count();
  }

  // The page for `gfn`, which must not be unsync.
  ShadowPages::Result Get(uint64_t gfn, PageRole role) {
    return GetSyncing(gfn, role, [](ShadowPageState&) {
      MMU_CHECK(!"the page is in step");
      return PageSync::kUnchanged;
    });
  }
  ShadowPages::Result GetSyncing(uint64_t gfn, PageRole role, SyncPageFn sync) {
    if (caches_.states.count() < ShadowCaches::kPagesPerFault) TopUp();
    return pages_.GetOrCreate(lock_, Gfn(gfn), role, caches_, sync, nullptr);
  }
  ShadowPageState& Page(uint64_t gfn, PageRole role) {
    return Get(gfn, role).page;
  }
  void Link(ShadowPageState& parent, int index, ShadowPageState& child) {
    pages_.links().LinkChild(lock_, parent.EntryAt(index), child, caches_.lists,
                             nullptr, nullptr);
  }
  Spte LeafTo(const ShadowPageState& page, uint64_t gfn) const {
    return SpteFormat::Ept().MakeLeaf(
        {.level = page.level(), .pfn = Pfn(gfn), .write = true});
  }
  // Adds a writable leaf that maps `gfn`. Returns true if its rmap became too
  // long.
  bool Map(ShadowPageState& page, int index, uint64_t gfn) {
    if (caches_.lists.count() == 0) TopUp();
    return pages_.links().AddLeaf(lock_, page.EntryAt(index), LeafTo(page, gfn),
                                  {Gfn(gfn), page.page->role.access()},
                                  Rmaps(gfn), caches_.lists, nullptr);
  }
  void MarkUnsync(ShadowPageState& page) {
    MutexLock lock(pages_.unsync().lock());
    pages_.unsync().MarkUnsync(lock_, page);
  }
  ZapOutcome Zap(ShadowPageState& page) {
    ZappedPages zapped;
    const ZapOutcome outcome = pages_.zap().Prepare(lock_, page, zapped);
    pages_.zap().Commit(lock_, zapped, nullptr);
    return outcome;
  }
  void PutRoot(ShadowPageState& page) {
    ZappedPages zapped;
    pages_.zap().PutRoot(lock_, page, zapped);
    pages_.zap().Commit(lock_, zapped, nullptr);
  }

  // The auditor's findings, one per line; "" if there are none.
  std::string AuditFindings() {
    return ShadowTestAudit(vm_).Run(lock_, pages_, Parts(), nullptr);
  }

  ShadowParts Parts() {
    return {SpteFormat::Ept(), SpteFormat::EptWithoutAd(), vm_,
            tlb_.Of(MmuKind::kShadow), counters_};
  }
  SlotRmaps& Rmaps(uint64_t gfn, int as_id = 0) {
    return *vm_.SlotOf(as_id, Gfn(gfn))->shadow_rmaps();
  }
  uint64_t RmapCount(uint64_t gfn, Level level = Level::k4K) {
    return Rmaps(gfn).Head(Gfn(gfn), level).Count(lock_);
  }
  uint64_t Flushes() const { return tlb_.Snapshot().remote_tlb_flush_requests; }
  const ShadowCounters& stats() const { return counters_.shadow; }

  TablePool tables_;
  ObjectPool states_{sizeof(ShadowPageState)};
  ObjectPool translations_{sizeof(GuestTranslations)};
  PteListPool lists_;
  ShadowCaches caches_{{tables_, states_, translations_, lists_}};
  MmuCounters counters_;
  RemoteTlb tlb_;
  FakeShadowVm vm_;
  MmuLock mmu_lock_;
  MmuWriteLocked lock_{mmu_lock_, LockOp::kFault};
  ShadowPages pages_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_SHADOW_TEST_UTIL_H_
