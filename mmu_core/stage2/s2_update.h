// The only way to change an entry of stage-2 tables.
//
// Faults change entries under mmu_lock in read mode, several at once: by
// compare-exchange against the cursor's snapshot (ARM-04). All other operations
// hold it in write mode (ARM-03), where only these interfere: the processor,
// which sets AF, and S2AP[1] if it manages the dirty state; and, where it sets
// AF, ageing, which clears AF without the lock. So they use the same
// compare-exchange and start again if it fails.
//
// Which change needs what (DDI0487, D8.16):
//
//   change                             break before make, and TLBI
//   empty -> page, block, table        neither (ARM-08)
//   rights, AF                         no break. More rights: the vCPU that
//                                      faulted drops its own translation. Fewer
//                                      rights: the caller flushes (ARM-07)
//   present -> empty                   no new value, so no break; the caller
//                                      flushes
//   block -> table, table -> block     break, TLBI, make (ARM-06)
//
// Break before make, of one entry:
//   1. compare-exchange: the old value -> the locked value. The hardware finds
//      no mapping; a walker that meets the locked value gives up.
//   2. TLBI and DSB: no vCPU has the old translation any more.
//   3. store-release: the new value.
// Without 1, a vCPU may cache the new translation beside the old one, of
// another size: a TLB conflict. If 1 stored an empty value instead, a fault
// could fill it, and 3 would overwrite the fault's mapping. If 2 came before 1,
// a vCPU could cache the old translation again in between.
//
// With FEAT_BBM level 2 the processor allows a change of size without the
// break: 1 stores the new value at once, and 3 is left out. Until 2, an access
// may find both translations, and the processor may raise a TLB conflict abort,
// which the hypervisor answers by dropping the translations. Both give the same
// address and the same rights, so it does not matter which one an access uses.

#ifndef MMU_CORE_STAGE2_S2_UPDATE_H_
#define MMU_CORE_STAGE2_S2_UPDATE_H_

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/mmu/entry_changes.h"
#include "mmu_core/stage2/s2_descriptor.h"
#include "mmu_core/stage2/s2_format.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {

// FEAT_BBM. Level 1 relaxes the rule with the nT bit; its use for stage 2 is in
// no source that this project follows, so it is not built.
enum class BbmLevel : uint8_t { k0 = 0, k2 = 2 };

// Thread-safe; REQUIRES for every call: mmu_lock in the mode that the caller's
// witness shows, and an RCU read section. Each function makes one attempt. On
// success the cursor's snapshot becomes the new value. Otherwise it returns
// false, nothing has changed, and the snapshot is the entry's current value.
template <TableGeometry G>
class S2Updater {
 public:
  S2Updater(MmuTlb tlb, BbmLevel bbm, Level start_level, MmuCounters& counters)
      : tlb_(tlb),
        bbm_(bbm),
        start_level_(start_level),
        counters_(counters),
        changes_(counters, Nothing()) {}

  // Fills an empty entry. REQUIRES: the snapshot is empty.
  template <typename Lock>
  [[nodiscard]] bool Install(const Lock& lock, S2Cursor<G>& cursor,
                             S2Descriptor desired) const {
    MMU_DCHECK(cursor.old_spte() == S2Descriptor());
    S2Page<G>* const holder = PageHolding(cursor);
    TakeReference(holder);
    if (!Exchange(cursor, desired)) {
      DropReference(holder);
      return false;
    }
    Account(lock, cursor, S2Descriptor(), desired);
    return true;
  }

  // Changes the rights or AF of a leaf, and nothing else.
  template <typename Lock>
  [[nodiscard]] bool ChangeRights(const Lock& lock, S2Cursor<G>& cursor,
                                  S2Descriptor desired) const {
    const S2Descriptor old = cursor.old_spte();
    MMU_DCHECK(cursor.IsPresentLeaf());
    MMU_DCHECK(((old.bits() ^ desired.bits()) &
                ~(s2_bits::kRights | s2_bits::kAccessFlag)) == 0);
    if (!Exchange(cursor, desired)) return false;
    lock.CountWork(1);
    return true;
  }

  // Replaces a block by a table, or a table by a block: breaks, invalidates and
  // makes, or what FEAT_BBM level 2 allows. A table that is replaced is torn
  // down. With level 2, a table translates each address that it translates like
  // the block, with the same rights.
  template <typename Lock>
  [[nodiscard]] bool Replace(const Lock& lock, S2Cursor<G>& cursor,
                             S2Descriptor desired, MmuCost* cost) const {
    const S2Descriptor old = cursor.old_spte();
    const Level level = cursor.level();
    MMU_DCHECK(old.IsPresent() && desired.IsPresent());
    MMU_DCHECK(old.IsLeaf(level) != desired.IsLeaf(level));
    const MayUnlink unlinking(level, old, desired);
    // A block may have other rights than the pages whose place it takes.
    const bool breaks = bbm_ == BbmLevel::k0 || desired.IsLeaf(level);
    if (!Exchange(cursor, breaks ? S2Descriptor::Locked() : desired)) {
      return false;
    }
    AtHook(HookPoint::kBreakToTlbi);
    TlbFlushBatch batch(tlb_, FlushScope::kRange, FlushReason::kBbm);
    if (old.IsLeaf(level)) {
      batch.AddLeaf(cursor.entry_range());
    } else {
      batch.Add(cursor.entry_range(), FlushDepth::kTables);
    }
    batch.Flush(cost);
    AtHook(HookPoint::kTlbiToMake);
    if (breaks) cursor.slot().Store(desired);
    cursor.SetOldSpte(desired);
    Account(lock, cursor, old, desired);
    return true;
  }

  // Empties a present entry; a table that it pointed at is torn down. If the
  // table that has the entry is empty then, it is unlinked, and so are those
  // above it that become empty thereby (ARM-02). The caller issues `batch`
  // before it leaves the RCU read section.
  [[nodiscard]] bool Empty(const MmuWriteLocked& lock, S2Cursor<G>& cursor,
                           TlbFlushBatch& batch) const {
    const S2Descriptor old = cursor.old_spte();
    MMU_DCHECK(old.IsPresent());
    const MayUnlink unlinking(cursor.level(), old, S2Descriptor());
    if (!Exchange(cursor, S2Descriptor())) return false;
    if (old.IsLeaf(cursor.level())) {
      batch.AddLeaf(cursor.entry_range());
    } else {
      batch.Add(cursor.entry_range(), FlushDepth::kTables);
    }
    Account(lock, cursor, old, S2Descriptor());
    S2Page<G>* const holder = PageHolding(cursor);
    DropReference(holder);
    UnlinkIfEmpty(lock, holder, batch);
    return true;
  }

  // Makes `page` the child of the cursor's entry, without entries. REQUIRES: no
  // other thread sees `page`.
  void PrepareChild(const S2Cursor<G>& cursor, S2Page<G>& page) const {
    page.level = ChildOf(cursor.level());
    page.gfn = cursor.gfn();
    page.parent_entry = &cursor.slot();
    page.parent = PageHolding(cursor);
    page.lost_block = page.parent != nullptr && page.parent->lost_block;
    page.references.store(1, std::memory_order_relaxed);
  }
  // Counts tables that are about to be linked, and their leafs. Negative: the
  // tables were not linked.
  void CountChild(int64_t tables, Level leaf_level, int64_t leafs) const {
    counters_.AddTables(tables);
    counters_.AddLeafs(leaf_level, leafs);
  }

  // The page of the table that has the cursor's entry; null for the root.
  S2Page<G>* PageHolding(const S2Cursor<G>& cursor) const {
    if (cursor.level() == start_level_) return nullptr;
    return S2Pool<G>::DescriptorOf(reinterpret_cast<const S2Table<G>*>(
        reinterpret_cast<uintptr_t>(&cursor.slot()) &
        ~uintptr_t{sizeof(S2Table<G>) - 1}));
  }
  // The page of the table that `descriptor` points at.
  static S2Page<G>* PageBelow(S2Descriptor descriptor) {
    return S2Pool<G>::DescriptorOf(S2Paging<G>::TableOf(descriptor));
  }

 private:
  struct Nothing {
    void operator()(S2Page<G>&) const {}
  };

  static void TakeReference(S2Page<G>* page) {
    if (page != nullptr) page->references.fetch_add(1, kRelaxed);
  }
  static void DropReference(S2Page<G>* page) {
    if (page != nullptr) page->references.fetch_sub(1, kRelaxed);
  }

  static bool Exchange(S2Cursor<G>& cursor, S2Descriptor desired) {
    MMU_DCHECK(InRcuReadSection());
    MMU_DCHECK(!cursor.old_spte().IsFrozen());
    S2Descriptor expected = cursor.old_spte();
    AtHook(HookPoint::kSnapshotToExchange);
    const bool won = cursor.slot().CompareExchange(expected, desired);
    cursor.SetOldSpte(won ? desired : expected);
    return won;
  }

  template <typename Lock>
  void Account(const Lock& lock, const S2Cursor<G>& cursor, S2Descriptor old,
               S2Descriptor now) const {
    constexpr ChangeMode kMode = std::is_same_v<Lock, MmuWriteLocked>
                                     ? ChangeMode::kExclusive
                                     : ChangeMode::kShared;
    lock.CountWork(
        1 +
        changes_.Handle(cursor.gfn(), cursor.level(), old, now, kMode).entries);
  }

  void UnlinkIfEmpty(const MmuWriteLocked& lock, S2Page<G>* page,
                     TlbFlushBatch& batch) const {
    while (page != nullptr && page->references.load(kRelaxed) == 1) {
      const Level level = ParentOf(page->level);
      S2Page<G>* const parent = page->parent;
      const S2Descriptor old =
          MakeS2Table(reinterpret_cast<uint64_t>(page->table));
      const MayUnlink unlinking(level, old, S2Descriptor());
      batch.AddItsTable();
      page->parent_entry->Store(S2Descriptor());
      lock.CountWork(changes_
                         .Handle(page->gfn, level, old, S2Descriptor(),
                                 ChangeMode::kExclusive)
                         .entries);
      DropReference(parent);
      page = parent;
    }
  }

  static constexpr std::memory_order kRelaxed = std::memory_order_relaxed;

  const MmuTlb tlb_;
  const BbmLevel bbm_;
  const Level start_level_;  // of the root
  MmuCounters& counters_;
  const EntryChanges<S2Paging<G>, Nothing> changes_;
};

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_UPDATE_H_
