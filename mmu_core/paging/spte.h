// An SPTE is a value: 64 bits of a second-stage page-table entry.
//
// It never changes. To change an entry of a table, read an Spte from its slot
// (paging/spte_slot.h), ask the format for a different value
// (paging/spte_format.h) and put that into the slot.
//
// The bits at the same place in every x86 format are named here; all others
// belong to SpteFormat:
//
//   bit  name          meaning
//   1    W             the hardware may write
//   7    page size     at level > 1: this entry maps memory itself
//   11   MMU-present   software: this entry is in use, even if the hardware
//                      sees no permission in it (SPTE-02)
//   51:12 address      of the mapped page or of the next table
//   63   initial       set in an entry that was never used (SPTE-01): it keeps
//                      EPT from raising #VE and is NX elsewhere
//
// (SDM vol. 3, 29.3.2, tables 29-3 to 29-6; APM vol. 2, 5.3.)

#ifndef MMU_CORE_PAGING_SPTE_H_
#define MMU_CORE_PAGING_SPTE_H_

#include <cstdint>
#include <ostream>

#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"

namespace mmu {

namespace spte_bits {
inline constexpr uint64_t kWrite = uint64_t{1} << 1;
inline constexpr uint64_t kPageSize = uint64_t{1} << 7;
inline constexpr uint64_t kMmuPresent = uint64_t{1} << 11;
inline constexpr uint64_t kAddress = 0x000f'ffff'ffff'f000;
inline constexpr uint64_t kInitial = uint64_t{1} << 63;
// An entry of a table that is being torn down (SPTE-46). Only the thread that
// tears the table down may replace it (TDP-29). No permission, not MMU-present,
// no address.
inline constexpr uint64_t kFrozen = kInitial | 0x1a0;

static_assert((kFrozen & (kMmuPresent | kAddress | 0x7)) == 0,
              "a frozen entry must not look present, mapped or permitted");
static_assert((kMmuPresent & (kAddress | kWrite | kPageSize | kInitial)) == 0);
}  // namespace spte_bits

// Thread-compatible; a value.
class Spte {
 public:
  // The value of a never-used entry.
  constexpr Spte() = default;
  constexpr explicit Spte(uint64_t bits) : bits_(bits) {}

  static constexpr Spte Initial() { return Spte(spte_bits::kInitial); }
  static constexpr Spte Frozen() { return Spte(spte_bits::kFrozen); }

  constexpr uint64_t bits() const { return bits_; }
  // The same entry with the bits of `mask` cleared.
  constexpr Spte Without(uint64_t mask) const { return Spte(bits_ & ~mask); }

  // The MMU uses the entry. This means neither that the hardware may access it
  // nor that it is non-zero (SPTE-01, SPTE-02).
  constexpr bool IsPresent() const {
    return (bits_ & spte_bits::kMmuPresent) != 0;
  }
  constexpr bool IsFrozen() const { return bits_ == spte_bits::kFrozen; }
  // Maps memory, rather than pointing at a table. REQUIRES: IsPresent(). Bit 7
  // means nothing at level 1 (SPTE-03).
  constexpr bool IsLeaf(Level level) const {
    return level == Level::k4K || (bits_ & spte_bits::kPageSize) != 0;
  }
  constexpr bool IsPresentLeaf(Level level) const {
    return IsPresent() && IsLeaf(level);
  }
  constexpr bool IsPresentTable(Level level) const {
    return IsPresent() && !IsLeaf(level);
  }
  constexpr bool IsWritable() const { return (bits_ & spte_bits::kWrite) != 0; }

  constexpr uint64_t address() const { return bits_ & spte_bits::kAddress; }
  constexpr Pfn pfn() const { return Pfn(address() >> kPageShift); }

  friend constexpr bool operator==(Spte, Spte) = default;
  friend std::ostream& operator<<(std::ostream& os, Spte spte) {
    return os << "spte 0x" << std::hex << spte.bits_ << std::dec;
  }

 private:
  uint64_t bits_ = spte_bits::kInitial;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_SPTE_H_
