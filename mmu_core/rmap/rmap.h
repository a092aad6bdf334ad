// Reverse maps: the SPTEs that map a gfn at one level (SHD-11, SHD-12).
//
//   word                          the rmap is
//   0                             empty
//   address of an SpteSlot        that one SPTE
//   address of a PteListDesc | 1  a list of descriptors
//   any but the first, | 2        the same, and locked
//
// Only the first descriptor of a list, the head, may be partly filled. A new
// SPTE goes into the head or, if the head is full, into a new head. A removed
// SPTE is replaced by the head's last entry. A head without entries is freed. A
// list that shrinks to one SPTE stays a list.
//
// A shadow page keeps its parents, the non-leaf SPTEs that point at it, in the
// same structure; those SPTEs are in no rmap (SHD-16).
//
// The array of rmaps of a memslot is in rmap/slot_rmaps.h. This file does not
// change SPTEs. An SPTE in an rmap need not be present: it is made non-present
// first and removed from the rmap afterwards.
//
// Locks and memory orders, chosen here and nowhere else:
//
//   change   mmu_lock in write mode, and bit 1 unless the rmap is empty. This
//            excludes all other threads except readers that found the rmap
//            empty.
//   walk     mmu_lock in any mode: then only readers are active and bit 1 is
//            not needed. Or, without mmu_lock, bit 1 (AGE-14). Bit 1 also
//            excludes other such readers: one word has no room for a count.
//
//   lock     compare-exchange, acquire: pairs with both stores below. A change
//            finds the descriptors as the previous change left them, and no
//            descriptor is changed or freed before a reader has finished with
//            it.
//   unlock   store, release. No exchange: no other thread writes to a locked
//            word.
//   first    store of the first SPTE into an empty rmap, release: a thread that
//            finds the SPTE sees its table as it was before the store.
//   load     relaxed. Before a lock, the value is only a hint; under mmu_lock,
//            that lock orders the load, and a reader's bit is masked out.
//
// RACE-28: a reader without mmu_lock against a removal.
//
//   1. Reader: finds a list, locks it.
//   2. Writer: makes an SPTE of the list non-present, waits to remove it.
//   3. Reader: walks the list and reaches that SPTE. The SPTE's table still
//      exists, since a table is freed after its SPTEs were removed. But the
//      reader must load the SPTE: being in the list does not mean that it is
//      present. Unlocks.
//   4. Writer: locks. A second reader waits.
//   5. Writer: removes the last SPTE, frees the descriptor, unlocks with 0.
//   6. Second reader: must reload the word, and finds nothing to lock and to
//      walk. With the value that it saw in 4 it would walk a freed descriptor.
//
// So a holder of bit 1 takes no other lock and never waits.

#ifndef MMU_CORE_RMAP_RMAP_H_
#define MMU_CORE_RMAP_RMAP_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/rmap/pte_list_cache.h"
#include "mmu_core/rmap/pte_list_desc.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"

namespace mmu {

// A walk over the SPTEs of an rmap, in no particular order. A change of the
// rmap invalidates the iterator. Externally synchronised by the lock that the
// rmap is held with.
class RmapIterator {
 public:
  bool Valid() const { return sptep_ != nullptr; }
  // REQUIRES, like Next: Valid().
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

  const PteListDesc* desc_ = nullptr;  // null: the list is one SPTE or empty
  uint32_t index_ = 0;
  SpteSlot* sptep_ = nullptr;
};

// One rmap. Zero bytes are an empty rmap. Freed only when empty. Thread-safe
// under the rules above. `counters` get the contention of bit 1.
class RmapHead {
 public:
  RmapHead() = default;
  RmapHead(const RmapHead&) = delete;
  RmapHead& operator=(const RmapHead&) = delete;

  // A hint, unless mmu_lock is held in write mode.
  bool empty() const { return word_.load(std::memory_order_relaxed) == 0; }

  // Adds `sptep`, which must not be in any rmap. Takes at most one descriptor
  // from `cache`, and none if the rmap is empty. Returns the number of SPTEs
  // before the addition (SHD-14).
  uint64_t Add(const MmuWriteLocked& lock, SpteSlot& sptep, PteListCache& cache,
               MmuCounters& counters);
  // Removes `sptep`, which must be in this rmap (checked).
  void Remove(const MmuWriteLocked& lock, SpteSlot& sptep,
              MmuCounters& counters);
  // Calls `drop` for each SPTE, then removes all SPTEs. `drop` makes its SPTE
  // non-present; it runs with bit 1 held and must take no lock. Returns false
  // if the rmap was empty.
  bool ZapAll(const MmuWriteLocked& lock,
              absl::FunctionRef<void(SpteSlot&)> drop, MmuCounters& counters);

  uint64_t Count(const MmuWriteLocked& lock) const;
  RmapIterator Entries(const MmuWriteLocked& lock) const;
  RmapIterator Entries(const MmuReadLocked& lock) const;

  // For the auditor: the reason why the descriptors break the rules above;
  // empty if they do not.
  std::string WhyMalformed(const MmuWriteLocked& lock) const;

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
  // Sets bit 1, waiting for it if needed; returns the word without bit 1. 0:
  // the rmap is empty and was not locked.
  uintptr_t Lock(MmuCounters& counters);
  // Stores `word`, the new value without bit 1, and so unlocks.
  void Unlock(uintptr_t word);
  static void CheckHeld(const MmuWriteLocked& lock);

  std::atomic<uintptr_t> word_{0};
};
static_assert(sizeof(RmapHead) == sizeof(uintptr_t));
static_assert(alignof(SpteSlot) > RmapHead::kLocked &&
              alignof(PteListDesc) > RmapHead::kLocked);

// A hold of one rmap's bit 1 by a thread that does not hold mmu_lock. Meanwhile
// the rmap does not change, and the tables of its SPTEs stay allocated; the
// SPTEs themselves may change. Keep the hold short: a holder of mmu_lock may be
// waiting for it. An empty rmap is not locked. Externally synchronised: belongs
// to the thread that made it.
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
