// The memslots of one address space at one moment.
//
// A set is built once and then only read; a change publishes another set. It is
// indexed by gfn, by id and by hva. Successive sets share nearly all of their
// indexes (memory/slot_index.h): there can be tens of thousands of slots, each
// added by a swap of its own.

#ifndef MMU_CORE_MEMORY_MEMSLOT_SET_H_
#define MMU_CORE_MEMORY_MEMSLOT_SET_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/memory/slot_index.h"

namespace mmu {

// Bit 63 of a generation: the set was published, but threads may still read the
// previous set (SLOT-21).
inline constexpr uint64_t kGenerationInProgress = uint64_t{1} << 63;

// Whether a value that was cached under generation `cached` may be used now
// that the generation is `current` (SLOT-22).
constexpr bool GenerationMatches(uint64_t cached, uint64_t current) {
  return cached == current && (current & kGenerationInProgress) == 0;
}

// The orders of the indexes (memory/slot_index.h).
struct ByGfn {
  using Entry = std::shared_ptr<const Memslot>;
  using Key = Gfn;
  using Bound = int;
  static constexpr bool kHasBound = false;
  static Key KeyOf(const Memslot& slot) { return slot.base_gfn; }
};
struct ById {
  using Entry = const Memslot*;
  using Key = uint32_t;
  using Bound = int;
  static constexpr bool kHasBound = false;
  static Key KeyOf(const Memslot& slot) { return slot.id; }
};
// Several slots can have the same host memory.
struct ByHva {
  using Entry = const Memslot*;
  using Key = std::pair<Hva, uint32_t>;
  using Bound = Hva;
  static constexpr bool kHasBound = true;
  static Key KeyOf(const Memslot& slot) { return {slot.hva, slot.id}; }
  static Hva BoundOf(const Memslot& slot) {
    return slot.hva + (slot.npages << kPageShift);  // its end
  }
};

// Slots in the order of their gfns.
using SlotRange = SlotIndex<ByGfn>::Range;

// Thread-safe: immutable except for the generation. Successive sets are made
// and destroyed by one thread at a time. Its lifetime is described at
// MemslotTable::Active.
class MemslotSet {
 public:
  using SlotPtr = std::shared_ptr<const Memslot>;

  // REQUIRES: no two slots overlap or have the same id.
  MemslotSet(uint64_t generation, const std::vector<SlotPtr>& slots);
  // The successor of `before`: without the slot `id`, if `before` has it, and
  // with `slot`, of the same id, unless null. REQUIRES: as above.
  MemslotSet(const MemslotSet& before, uint64_t generation, uint32_t id,
             SlotPtr slot);
  // The successor of `before`, with each slot of `slots` in place of the slot
  // with the same id. REQUIRES: as above.
  MemslotSet(const MemslotSet& before, uint64_t generation,
             absl::Span<const SlotPtr> slots);

  uint64_t generation() const {
    return generation_.load(std::memory_order_acquire);
  }
  // Sets the generation: with bit 63 to begin a swap, without it to end one.
  // Called by MemslotTable.
  void set_generation(uint64_t generation) {
    generation_.store(generation, std::memory_order_release);
  }

  // Null if no slot contains `gfn`. O(log n). Also finds a slot that is being
  // deleted or moved; its invalid() is true.
  const Memslot* FindByGfn(Gfn gfn) const;
  const Memslot* FindById(uint32_t id) const;

  // As FindById, with ownership.
  SlotPtr FindOwnedById(uint32_t id) const;

  // Ascending by gfn.
  SlotRange slots() const { return by_gfn_.all(); }
  // As slots(), with ownership.
  std::vector<SlotPtr> owned_slots() const;
  // Ascending by id.
  SlotIndex<ById>::Range slots_by_id() const { return by_id_.all(); }

  // The slots that share gfns with `range`, ascending by gfn.
  SlotRange SlotsIn(GfnRange range) const;

  // Calls `fn` for each slot whose memory overlaps [start, end), with the gfns
  // of the overlapping pages. Several slots can have the same memory.
  void ForEachInHvaRange(
      Hva start, Hva end,
      absl::FunctionRef<void(const Memslot& slot, GfnRange gfns)> fn) const;

 private:
  // Used while the set is built. Put replaces the slot with the same id, if
  // any.
  void Put(SlotPtr slot);
  void Insert(SlotPtr slot);
  void Erase(uint32_t id);

  // Immutable once built. by_gfn_ owns the slots.
  SlotIndex<ByGfn> by_gfn_;
  SlotIndex<ById> by_id_;
  SlotIndex<ByHva> by_hva_;
  std::atomic<uint64_t> generation_;  // release/acquire
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_SET_H_
