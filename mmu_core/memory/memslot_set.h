// The memslots of one address space at one moment.
//
// A set is built once and then only read; a change publishes another set. It
// is indexed by gfn, by id and by hva.

#ifndef MMU_CORE_MEMORY_MEMSLOT_SET_H_
#define MMU_CORE_MEMORY_MEMSLOT_SET_H_

#include <atomic>
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

// Thread-safe: immutable except the generation. Lives as MemslotTable::Active
// says.
class MemslotSet {
 public:
  using SlotPtr = std::shared_ptr<const Memslot>;

  // REQUIRES: no two slots overlap or have the same id.
  MemslotSet(uint64_t generation, std::vector<SlotPtr> slots);

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
  // The same, with ownership.
  const std::vector<SlotPtr>& owned_slots() const { return owned_; }

  // The slots that share gfns with `range`, in order.
  absl::Span<const Memslot* const> SlotsIn(GfnRange range) const;

  // Calls `fn` for each slot whose memory overlaps [start, end), with the gfns
  // of the pages concerned. Several slots can have the same memory.
  void ForEachInHvaRange(
      Hva start, Hva end,
      absl::FunctionRef<void(const Memslot& slot, GfnRange gfns)> fn) const;

 private:
  struct HvaEntry {
    const Memslot* slot;
    Hva max_end;  // the largest end of this entry and all before it
  };

  std::vector<SlotPtr> owned_;          // by gfn; immutable
  std::vector<const Memslot*> by_gfn_;  // immutable
  std::vector<const Memslot*> by_id_;   // immutable
  std::vector<HvaEntry> by_hva_;        // by hva; immutable
  std::atomic<uint64_t> generation_;    // release/acquire
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MEMSLOT_SET_H_
