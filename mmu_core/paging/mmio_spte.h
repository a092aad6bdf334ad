// SPTEs that say "no memory here": an access to them is emulated without
// looking for a memslot again.
//
// Such an entry is not MMU-present. The hardware refuses it in a way that
// nothing else does (a misconfiguration with EPT, a reserved bit with NPT), and
// it remembers what was found, and when:
//
//                 EPT                       NPT
//   kind          2:0 = 110, 63 = 0         bit 51 and P
//   access        -                         W, U as in a leaf
//   generation    9:3 bits 6:0, 62:52 bits 17:7 (both)
//   gfn           from bit 12, see below
//
// On hosts with 46 or fewer physical address bits the top five of them are set
// and what they displace of the address is kept five bits higher up: then the
// address that a processor may speculate with points at no memory (L1TF).
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

  // NPT needs a reserved address bit, which a host with 52 bits does not have:
  // then no entry is ever made, and each access is emulated the long way.
  bool enabled() const { return enabled_; }

  // REQUIRES: enabled(), gfn <= max_gfn(). `generation` without its in-progress
  // bit; the low 18 bits are kept.
  Spte Make(Gfn gfn, uint64_t generation) const;

  bool IsMmio(Spte spte) const {
    return enabled_ && (spte.bits() & mask_) == value_;
  }
  // REQUIRES: IsMmio(spte).
  Gfn GfnOf(Spte spte) const;
  uint64_t GenerationOf(Spte spte) const;

  // The highest gfn that the host could have memory at (SPTE-45).
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
