// The descriptors that the stage-2 MMU makes. The layout is in s2_descriptor.h.

#ifndef MMU_CORE_STAGE2_S2_FORMAT_H_
#define MMU_CORE_STAGE2_S2_FORMAT_H_

#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/stage2/s2_descriptor.h"

namespace mmu {

// Whether the guest may write. kNoted: the hardware notes the first write in
// the descriptor.
enum class S2Write : uint8_t { kNo, kYes, kNoted };

// A page at level 1 or a block above it, of Normal memory that the guest may
// read and execute. AF is set: the descriptor is made for an access, or by a
// split, after which all pages look young (ARM-25). REQUIRES: `pfn` is aligned
// to `level`.
constexpr S2Descriptor MakeS2Leaf(Pfn pfn, Level level, S2Write write) {
  return S2Descriptor(
      s2_bits::kValid | (ToInt(level) == 1 ? s2_bits::kTable : 0) |
      s2_bits::kMemAttrNormal | s2_bits::kInnerShareable | s2_bits::kRead |
      (write == S2Write::kYes ? s2_bits::kWrite : 0) |
      (write == S2Write::kNoted ? s2_bits::kDirtyBitModifier : 0) |
      s2_bits::kAccessFlag | pfn.value() << kPageShift);
}

// A pointer to the table at `address`, which is aligned to the granule.
constexpr S2Descriptor MakeS2Table(uint64_t address) {
  return S2Descriptor(s2_bits::kValid | s2_bits::kTable | address);
}

// Child `index` of the block `block` of `level`: translates like the block with
// the same rights and attributes, and has AF (ARM-25).
template <TableGeometry G>
constexpr S2Descriptor MakeS2SplitChild(S2Descriptor block, Level level,
                                        int index) {
  const Level child = ChildOf(level);
  const uint64_t address =
      block.address() + static_cast<uint64_t>(index) * BytesPer<G>(child);
  return block.Without(s2_bits::kAddress)
      .With(address | s2_bits::kAccessFlag |
            (ToInt(child) == 1 ? s2_bits::kTable : 0));
}

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_S2_FORMAT_H_
