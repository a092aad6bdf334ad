// MMIO SPTEs: entries that mark a gfn without memory. An access to such a gfn
// is emulated without another memslot lookup.
//
// An MMIO SPTE is not MMU-present. It causes a kind of fault that no other
// entry causes: an EPT misconfiguration, or a reserved-bit fault with NPT. It
// stores the gfn and the memslot generation of the lookup that found no
// memslot:
//
//                 EPT                       NPT
//   kind          2:0 = 110, 63 = 0         bit 51 and P
//   access        -                         W, U as in a leaf
//   generation    9:3 bits 6:0, 62:52 bits 17:7 (both)
//   gfn           from bit 12, see below
//
// On hosts with 46 or fewer physical address bits, the top five address bits
// are set, and the bits that they replace are kept five bits higher up. A
// processor that speculates with the address then reaches no memory (L1TF).
//
// (SPTE-40..42; SDM vol. 3, 29.3.3.1; APM vol. 2, 15.25.6.)

#ifndef MMU_CORE_PAGING_MMIO_SPTE_H_
#define MMU_CORE_PAGING_MMIO_SPTE_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/paging/spte.h"

namespace mmu {

// The part of a memslot generation that an entry can hold: 18 bits.
inline constexpr uint64_t kMmioGenerationMask = (uint64_t{1} << 18) - 1;

// Immutable. Thread-safe.
class MmioFormat {
 public:
  enum class Kind : uint8_t { kEpt, kNpt };

  // `host_address_bits`: physical address bits of the host, 36 to 52.
  MmioFormat(Kind kind, int host_address_bits);

  // NPT needs a reserved address bit. A host with 52 address bits has none:
  // then no MMIO SPTE is made, and each access is emulated after a memslot
  // lookup.
  bool enabled() const { return enabled_; }

  // REQUIRES: enabled(), gfn <= max_gfn(). `generation` has no in-progress bit;
  // its low 18 bits are kept.
  Spte Make(Gfn gfn, uint64_t generation) const;

  bool IsMmio(Spte spte) const {
    return enabled_ && (spte.bits() & mask_) == value_;
  }
  // REQUIRES: IsMmio(spte).
  Gfn GfnOf(Spte spte) const;
  uint64_t GenerationOf(Spte spte) const;

  // The highest gfn that the host can address (SPTE-45).
  Gfn max_gfn() const { return max_gfn_; }

 private:
  bool enabled_;
  uint64_t mask_;
  uint64_t value_;
  uint64_t decoy_;  // the five top address bits (L1TF), or 0
  Gfn max_gfn_;
};

}  // namespace mmu

#endif  // MMU_CORE_PAGING_MMIO_SPTE_H_
