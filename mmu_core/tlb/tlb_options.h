// How a vCPU's TLB follows flushes.

#ifndef MMU_CORE_TLB_TLB_OPTIONS_H_
#define MMU_CORE_TLB_TLB_OPTIONS_H_

#include <cstdint>

namespace mmu {

// A value.
struct TlbOptions {
  enum class Flushes : uint8_t {
    // Each remote flush empties the TLB, as on a processor that has no flush of
    // a range (TLB-03). Nothing above the leafs is cached. The fastest.
    kWhole,
    // A flush drops what it covers and nothing else, and a paging-structure
    // cache keeps pointers to tables. More precise than any processor, so that
    // a flush of the wrong range, MMU or depth has an effect.
    kPrecise,
  } flushes = Flushes::kWhole;

  // With kPrecise.
  enum class Evictions : uint8_t {
    // The TLB forgets an entry now and then, as it may at any time. `seed`
    // chooses the entries.
    kRandom,
    // The TLB forgets only what it is told to, however many entries there are.
    kNever,
  } evictions = Evictions::kNever;
  uint64_t seed = 0;

  friend bool operator==(const TlbOptions&, const TlbOptions&) = default;
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLB_OPTIONS_H_
