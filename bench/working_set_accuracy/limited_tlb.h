// Which pages a TLB of a limited size can translate.
//
// The TLB of a vCPU (tlb/basic_vcpu_tlb.h) has a size that is fixed, or none at
// all. A LimitedTlb beside a TLB without a limit says which page has to be
// dropped there, so that it behaves as one of any size.

#ifndef BENCH_WORKING_SET_ACCURACY_LIMITED_TLB_H_
#define BENCH_WORKING_SET_ACCURACY_LIMITED_TLB_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "mmu_core/base/check.h"

namespace mmu::bench {

// Set-associative: a page may be in the `ways` entries of one set. A page that
// finds its set full takes the place of the one that was used least recently.
// Thread-compatible.
class LimitedTlb {
 public:
  // REQUIRES: `ways` is at least 1 and divides `entries`.
  LimitedTlb(size_t entries, size_t ways)
      : ways_(ways), sets_(entries / ways), pages_(entries, kNone) {
    MMU_CHECK(entries > 0 && entries % ways == 0);
  }

  // The guest accesses `page`. Returns the page that loses its place.
  std::optional<uint64_t> Use(uint64_t page) {
    const auto set = pages_.begin() + (page % sets_) * ways_;
    const auto end = set + ways_;
    auto place = std::find(set, end, page);
    std::optional<uint64_t> dropped;
    if (place == end) {
      --place;
      if (*place != kNone) dropped = *place;
    }
    std::move_backward(set, place, place + 1);
    *set = page;
    return dropped;
  }
  void Clear() { std::fill(pages_.begin(), pages_.end(), kNone); }

 private:
  static constexpr uint64_t kNone = ~uint64_t{0};

  const size_t ways_;
  const size_t sets_;
  // By set; within a set, the page that was used last comes first.
  std::vector<uint64_t> pages_;
};

}  // namespace mmu::bench

#endif  // BENCH_WORKING_SET_ACCURACY_LIMITED_TLB_H_
