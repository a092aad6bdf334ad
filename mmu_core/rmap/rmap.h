// Reverse maps: the SPTEs that map a gfn at one level (SHD-11, SHD-12).
//
//   word                          the rmap is
//   0                             empty
//   address of an SpteSlot        that one SPTE
//   address of a PteListDesc | 1  a list of descriptors
//   any but the first, | 2        the same, and locked
//
// Only the first descriptor of a list, the head, may be partly filled: an SPTE
// is added to it, or, if it is full, to a new head; where one is removed, the
// last of the head takes its place. A head without entries is freed. A list of
// one SPTE stays a list.
//
// A shadow page keeps the non-leaf SPTEs that point at it, its parents, in the
// same structure; those are in no rmap (SHD-16).
//
// What is not here: the array of rmaps of a memslot (rmap/slot_rmaps.h), and
// what is done to an SPTE. An SPTE that is in an rmap need not be present: it
// is made non-present first and removed then.
//
// Who locks what, and the memory orders, chosen here and nowhere else:
//
//   change   mmu_lock in write mode, and bit 1 unless the rmap is empty. Who
//            changes is thereby alone, but for readers that met it empty.
//   walk     mmu_lock in any mode: only readers are about, bit 1 is not
//            needed. Or, without mmu_lock, bit 1 (AGE-14). That keeps other
//            such readers out as well: one word has no room for their number.
//
//   lock     compare-exchange, acquire: pairs with both stores below. What a
//            change comes upon in the descriptors is what the one before left
//            there, and no descriptor is changed or freed before whoever read
//            it is through with it.
//   unlock   store, release. No exchange: nobody writes to a locked word.
//   first    store of the first SPTE into an empty rmap, release: who finds it
//            sees the table that it is in as it was before.
//   load     relaxed. Before a lock, nothing that it says is relied upon; under
//            mmu_lock, that lock orders it, and a reader's bit is masked out.
//
// RACE-28: a reader without mmu_lock against a removal.
//
//   1. Reader: finds a list, locks it.
//   2. Writer: makes an SPTE of it non-present, wants to remove it, waits.
//   3. Reader: walks, comes to that SPTE. Its table is still there, for a table
//      is freed after its SPTEs were removed; but the SPTE must be looked at
//      again, not taken for present because it was found here. Unlocks.
//   4. Writer: locks. A second reader waits.
//   5. Writer: removes the last SPTE, frees the descriptor, unlocks with 0.
//   6. Second reader: must go by the word as it is now, and finds nothing to
//      lock and to walk. With what it saw in 4 it would walk a freed
//      descriptor.
//
// So a holder of bit 1 takes no other lock, and does not wait for anything.

#ifndef MMU_CORE_RMAP_RMAP_H_
#define MMU_CORE_RMAP_RMAP_H_

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// A walk over the SPTEs of an rmap, in no particular order. A change of the
// rmap ends it: begin anew.
// Externally synchronised: by what the rmap was locked with.
class RmapIterator {
 public:
  bool Valid() const { return sptep_ != nullptr; }
  // REQUIRES, as the next: Valid().
  SpteSlot& sptep() const { return *sptep_; }
  void Next() {
    if (desc_ != nullptr && ++index_ == desc_->count) {
      desc_ = desc_->next;
      index_ = 0;
    }
    sptep_ = desc_ == nullptr ? nullptr : desc_->sptes[index_];
  }

 private:
  friend class RmapHead;
  friend class RmapReadLocked;
  // `word` of an rmap, without the lock bit.
  explicit RmapIterator(uintptr_t word);

  const PteListDesc* desc_ = nullptr;  // null: the word is the SPTE, or 0
  uint32_t index_ = 0;
  SpteSlot* sptep_ = nullptr;
};

// One rmap. Zero bytes are an empty one. Freed only when empty.
// Thread-safe as said above. `counters` get the contention of bit 1.
class RmapHead {
 public:
  RmapHead() = default;
  RmapHead(const RmapHead&) = delete;
  RmapHead& operator=(const RmapHead&) = delete;

  // A hint, unless mmu_lock is held in write mode.
  bool empty() const { return word_.load(std::memory_order_relaxed) == 0; }

  // Adds `sptep`, which must not be in any rmap. Takes at most one descriptor
  // from `cache`, and none if the rmap is empty. Returns how many SPTEs were
  // in it before (SHD-14).
  uint64_t Add(const MmuWriteLocked& lock, SpteSlot& sptep, PteListCache& cache,
               MmuCounters& counters);
  // Removes `sptep`, which must be in it (checked).
  void Remove(const MmuWriteLocked& lock, SpteSlot& sptep,
              MmuCounters& counters);
  // Calls `drop` for each SPTE, then removes them all. `drop` makes its SPTE
  // non-present; it runs with bit 1 held, and takes no lock. Returns false if
  // there was none.
  bool ZapAll(const MmuWriteLocked& lock,
              absl::FunctionRef<void(SpteSlot&)> drop, MmuCounters& counters);

  uint64_t Count(const MmuWriteLocked& lock) const;
  RmapIterator Entries(const MmuWriteLocked& lock) const;
  RmapIterator Entries(const MmuReadLocked& lock) const;

  // The word, for tests of the encoding.
  uintptr_t WordForTest() const {
    return word_.load(std::memory_order_relaxed);
  }

  static constexpr uintptr_t kMany = 1;
  static constexpr uintptr_t kLocked = 2;

 private:
  friend class RmapIterator;
  friend class RmapReadLocked;

  static PteListDesc* ListOf(uintptr_t word) {
    return reinterpret_cast<PteListDesc*>(word & ~(kMany | kLocked));
  }
  // Sets bit 1, waiting for it if need be; returns the word without it. 0: the
  // rmap is empty, and not locked.
  uintptr_t Lock(MmuCounters& counters);
  // `word` is what the rmap is from now on, without bit 1.
  void Unlock(uintptr_t word);
  static void CheckHeld(const MmuWriteLocked& lock);

  std::atomic<uintptr_t> word_{0};
};
static_assert(sizeof(RmapHead) == sizeof(uintptr_t));
static_assert(alignof(SpteSlot) > RmapHead::kLocked &&
              alignof(PteListDesc) > RmapHead::kLocked);

// A hold of one rmap's bit 1 by somebody who does not hold mmu_lock. As long as
// it lives the rmap stays what it is, and the tables that its SPTEs are in stay
// allocated; the SPTEs themselves change as they like. Keep it short: a holder
// of mmu_lock may be waiting for it. An empty rmap is not locked.
// Externally synchronised: belongs to the thread that made it.
class [[nodiscard]] RmapReadLocked {
 public:
  RmapReadLocked(RmapHead& head, MmuCounters& counters);
  ~RmapReadLocked() {
    if (word_ != 0) head_.Unlock(word_);
  }
  RmapReadLocked(const RmapReadLocked&) = delete;
  RmapReadLocked& operator=(const RmapReadLocked&) = delete;

  RmapIterator Entries() const { return RmapIterator(word_); }

 private:
  RmapHead& head_;
  const uintptr_t word_;
};

}  // namespace mmu

#endif  // MMU_CORE_RMAP_RMAP_H_
