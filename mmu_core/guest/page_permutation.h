// A pseudo-random permutation of the numbers 0..n-1 that needs no table.

#ifndef MMU_CORE_GUEST_PAGE_PERMUTATION_H_
#define MMU_CORE_GUEST_PAGE_PERMUTATION_H_

#include <array>
#include <cstdint>

namespace mmu {

// A Feistel network over the next even power of two. Results outside 0..n-1 are
// fed in again, less than three times on average. So even a million pages use
// no memory, and any two vCPUs with the same seed see the same order. A value.
// Thread-compatible.
class PagePermutation {
 public:
  // REQUIRES: 0 < size <= 2^62.
  PagePermutation(uint64_t size, uint64_t seed);

  uint64_t size() const { return size_; }

  // A bijection of 0..size-1 onto itself. REQUIRES: index < size().
  uint64_t At(uint64_t index) const;

 private:
  uint64_t Scramble(uint64_t value) const;

  uint64_t size_;
  int half_bits_;
  uint64_t half_mask_;
  std::array<uint64_t, 4> keys_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_PAGE_PERMUTATION_H_
