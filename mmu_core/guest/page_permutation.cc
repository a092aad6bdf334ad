#include "mmu_core/guest/page_permutation.h"

#include <cstdint>

#include "absl/numeric/bits.h"
#include "mmu_core/base/check.h"
#include "mmu_core/guest/random.h"

namespace mmu {

PagePermutation::PagePermutation(uint64_t size, uint64_t seed) : size_(size) {
  MMU_CHECK(size > 0 && size <= uint64_t{1} << 62);
  const int bits = static_cast<int>(absl::bit_width(size - 1));
  half_bits_ = (bits + 1) / 2;
  half_mask_ = (uint64_t{1} << half_bits_) - 1;
  for (uint64_t& key : keys_) {
    seed = MixBits(seed);
    key = seed;
  }
}

uint64_t PagePermutation::Scramble(uint64_t value) const {
  uint64_t left = value >> half_bits_;
  uint64_t right = value & half_mask_;
  for (const uint64_t key : keys_) {
    const uint64_t next = left ^ (MixBits(right ^ key) & half_mask_);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

uint64_t PagePermutation::At(uint64_t index) const {
  MMU_DCHECK(index < size_);
  do {
    index = Scramble(index);
  } while (index >= size_);
  return index;
}

}  // namespace mmu
