#include "mmu_core/paging/mmio_spte.h"

#include "mmu_core/base/check.h"

namespace mmu {
namespace {

constexpr uint64_t Bits(int high, int low) {
  return ((uint64_t{1} << (high - low + 1)) - 1) << low;
}

constexpr int kDecoyBits = 5;
// L1TF does not affect hosts with more physical address bits than this.
constexpr int kMaxAffectedAddressBits = 46;

constexpr uint64_t kGenerationLow = Bits(9, 3);     // generation 6:0
constexpr uint64_t kGenerationHigh = Bits(62, 52);  // generation 17:7
constexpr int kLowGenerationBits = 7;

constexpr uint64_t kEptMask = Bits(63, 63) | Bits(2, 0);
constexpr uint64_t kEptValue = 0b110;
constexpr uint64_t kNptMask = Bits(51, 51) | Bits(0, 0);
constexpr uint64_t kNptValue = kNptMask;
// The access bits that NPT MMIO entries store: W and U, always both.
constexpr uint64_t kNptAccess = Bits(2, 1);

// MMIO entries differ from unused and frozen entries, and their fields from
// each other.
static_assert((spte_bits::kInitial & kEptMask) != kEptValue);
static_assert((spte_bits::kFrozen & kEptMask) != kEptValue);
static_assert((spte_bits::kInitial & kNptMask) != kNptValue);
static_assert((spte_bits::kFrozen & kNptMask) != kNptValue);
static_assert(((kGenerationLow | kGenerationHigh) &
               (kEptMask | kNptMask | kNptAccess | spte_bits::kMmuPresent |
                spte_bits::kAddress)) == 0);
static_assert((kEptMask & spte_bits::kMmuPresent) == 0);

}  // namespace

MmioFormat::MmioFormat(Kind kind, int host_address_bits)
    : enabled_(kind == Kind::kEpt || host_address_bits < 52),
      mask_(kind == Kind::kEpt ? kEptMask : kNptMask),
      value_(kind == Kind::kEpt ? kEptValue : kNptValue),
      decoy_(host_address_bits <= kMaxAffectedAddressBits
                 ? Bits(host_address_bits - 1, host_address_bits - kDecoyBits)
                 : 0),
      max_gfn_((uint64_t{1} << (host_address_bits - kPageShift)) - 1) {
  MMU_CHECK(host_address_bits >= 36 && host_address_bits <= 52);
}

Spte MmioFormat::Make(Gfn gfn, uint64_t generation) const {
  MMU_DCHECK(enabled_ && gfn <= max_gfn_);
  const uint64_t address = gfn.value() << kPageShift;
  const uint64_t low = generation & Bits(kLowGenerationBits - 1, 0);
  const uint64_t high =
      (generation & kMmioGenerationMask) >> kLowGenerationBits;
  const uint64_t bits = value_ | (mask_ == kNptMask ? kNptAccess : 0) |
                        low << 3 | high << 52 | decoy_ | (address & ~decoy_) |
                        (address & decoy_) << kDecoyBits;
  return Spte(bits);
}

Gfn MmioFormat::GfnOf(Spte spte) const {
  MMU_DCHECK(IsMmio(spte));
  const uint64_t plain = spte.bits() & (max_gfn_.value() << kPageShift);
  const uint64_t address =
      (plain & ~decoy_) | ((spte.bits() >> kDecoyBits) & decoy_);
  return Gfn(address >> kPageShift);
}

uint64_t MmioFormat::GenerationOf(Spte spte) const {
  MMU_DCHECK(IsMmio(spte));
  return (spte.bits() & kGenerationLow) >> 3 |
         (spte.bits() & kGenerationHigh) >> 52 << kLowGenerationBits;
}

}  // namespace mmu
