// The memslots of one address space at one moment.
//
// A set is built once and then only read; a change publishes another set. It
// is indexed by gfn, by id and by hva.

#ifndef MMU_CORE_MEMORY_MEMSLOT_SET_H_
#define MMU_CORE_MEMORY_MEMSLOT_SET_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// Bit 63 of a generation: the set was published, but readers of the one before
// may still be about (SLOT-21).
inline constexpr uint64_t kGenerationInProgress = uint64_t{1} << 63;

// Whether something cached under `cached` may be used now that the generation
// is `current` (SLOT-22).
constexpr bool GenerationMatches(uint64_t cached, uint64_t current) {
  return cached == current && (current & kGenerationInProgress) == 0;
}

// Thread-safe: immutable except the generation and, for the one who changes
// memslots, who owns the slots. Lives as MemslotTable::Active says.
class MemslotSet {
 public:
  using SlotPtr = std::shared_ptr<const Memslot>;

  // REQUIRES: no two slots overlap or have the same id.
  MemslotSet(uint64_t generation, std::vector<SlotPtr> slots);
  // The set that follows `before`: without the slot of `id`, if it has one, and
  // with `slot` unless null. Takes over the ownership of the slots; `before`
  // can still be read until ForgetReplaced. Neither sorts nor counts
  // references: there can be tens of thousands of slots, each added by a swap
  // of its own. REQUIRES: as above.
  MemslotSet(MemslotSet& before, uint64_t generation, uint32_t id,
             SlotPtr slot);
  // Nobody reads the set before any more: lets go of the slot it had besides.
  void ForgetReplaced() { replaced_.reset(); }

  uint64_t generation() const {
    return generation_.load(std::memory_order_acquire);
  }
  // Ends a swap: the generation without bit 63. Called by MemslotTable.
  void set_generation(uint64_t generation) {
    generation_.store(generation, std::memory_order_release);
  }

  // Null if no slot contains `gfn`. O(log n). A slot that is being deleted or
  // moved is found, with invalid() true.
  const Memslot* FindByGfn(Gfn gfn) const;
  const Memslot* FindById(uint32_t id) const;

  // In the order of their gfns.
  absl::Span<const Memslot* const> slots() const { return by_gfn_; }
  // The same, with ownership. Not of a set that another one followed, nor while
  // one may.
  const std::vector<SlotPtr>& owned_slots() const { return owned_; }

  // The slots that share gfns with `range`, in order.
  absl::Span<const Memslot* const> SlotsIn(GfnRange range) const;

  // Calls `fn` for each slot whose memory overlaps [start, end), with the gfns
  // of the pages concerned. Several slots can have the same memory.
  void ForEachInHvaRange(
      Hva start, Hva end,
      absl::FunctionRef<void(const Memslot& slot, GfnRange gfns)> fn) const;

 private:
  // While the set is built.
  void Insert(SlotPtr slot);
  void Erase(uint32_t id);
  // Of the entries of by_hva_ from `first` on.
  void SetMaxEnds(size_t first);

  struct HvaEntry {
    const Memslot* slot;
    Hva max_end;  // the largest end of this entry and all before it
  };

  // Immutable once built.
  std::vector<SlotPtr> owned_;  // by gfn; handed on to the next set
  SlotPtr replaced_;            // of the set before, until nobody reads it
  std::vector<const Memslot*> by_gfn_;
  std::vector<const Memslot*> by_id_;
  std::vector<HvaEntry> by_hva_;      // by hva
  std::atomic<uint64_t> generation_;  // release/acquire
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_SET_H_
