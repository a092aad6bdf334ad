// The TLB invalidate instructions of arm64, as far as stage 2 needs them
// (DDI0487, D8.17 and C5.5).
//
//   kind       instruction         drops
//   kIpa       TLBI IPAS2E1IS      stage-2 entries of one address: leafs of the
//                                  level that the TTL hint names, or without a
//                                  hint those of any level and pointers to
//                                  tables on the way to it
//   kIpaLocal  TLBI IPAS2E1        the same on the processor that executes it
//   kIpaRange  TLBI RIPAS2E1IS     stage-2 entries of a range (FEAT_TLBIRANGE)
//   kVmid      TLBI VMALLS12E1IS   all entries of the VMID, of both stages
//   kStage1    TLBI VMALLE1IS      all entries of the VMID that stage 1 made,
//                                  combined entries of both stages among them
//   kStage1Local  TLBI VMALLE1     the same on the processor that executes it
//
// An entry that combines both stages does not remember the IPA. So each
// invalidation by IPA is followed by one of stage 1. An instruction with IS is
// broadcast (to the Inner Shareable domain), and the DSB that follows waits
// until every processor has carried it out.

#ifndef MMU_CORE_TLB_TLBI_H_
#define MMU_CORE_TLB_TLBI_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush.h"

namespace mmu {

// One TLBI RIPAS2E1IS covers (num + 1) << (5 * scale + 1) granules.
inline constexpr int kTlbiMaxScale = 3;
inline constexpr int kTlbiMaxNum = 31;
// The most granules that one instruction covers, 2^21. Above it this MMU
// invalidates the whole VMID (ARM-39).
inline constexpr uint64_t kTlbiMaxGranules = uint64_t{kTlbiMaxNum + 1}
                                             << (5 * kTlbiMaxScale + 1);

// The number of granules that one instruction of `scale` and `num` covers.
constexpr uint64_t TlbiGranules(int scale, int num) {
  return static_cast<uint64_t>(num + 1) << (5 * scale + 1);
}

// Calls fn(first, granules) for each instruction that together invalidate
// `granules` granules from number `first` on: range instructions from the
// largest scale down, and for an odd granule at the end one by IPA, whose
// number of granules is 1.
template <typename Fn>
void ForEachTlbi(uint64_t first, uint64_t granules, Fn fn) {
  for (int scale = kTlbiMaxScale; scale >= 0; --scale) {
    const uint64_t unit = TlbiGranules(scale, 0);
    while (granules >= unit) {
      const uint64_t units =
          granules / unit < kTlbiMaxNum + 1 ? granules / unit : kTlbiMaxNum + 1;
      fn(first, units * unit);
      first += units * unit;
      granules -= units * unit;
    }
  }
  if (granules != 0) fn(first, uint64_t{1});
}

// The instructions of one VM: turns flushes into instructions and counts them.
// Thread-safe.
class TlbiUnit {
 public:
  // FEAT_TLBIRANGE.
  enum class Ranges : uint8_t { kNo, kYes };

  TlbiUnit(int granule_shift, Ranges ranges)
      : shift_(granule_shift - kPageShift), ranges_(ranges) {}

  bool has_ranges() const { return ranges_ == Ranges::kYes; }

  // Counts the instructions that carry out `flush`, and returns what they
  // invalidate, which is all that was asked for at least. A flush of one level
  // is by IPA, one instruction for each entry. Without FEAT_TLBIRANGE, or above
  // kTlbiMaxGranules, any other flush is of the whole VMID.
  TlbFlush Issue(const TlbFlush& flush);

  // Counts the instructions by which a processor drops what it alone may have
  // cached for an address whose rights were extended (ARM-07).
  void IssueLocal() {
    Add(TlbiKind::kIpaLocal, 1);
    Add(TlbiKind::kStage1Local, 1);
  }

  uint64_t Count(TlbiKind kind) const {
    return counts_[static_cast<int>(kind)].load(std::memory_order_relaxed);
  }

 private:
  void Add(TlbiKind kind, uint64_t count) {
    counts_[static_cast<int>(kind)].fetch_add(count, std::memory_order_relaxed);
  }

  const int shift_;  // log2 of the gfns of a granule
  const Ranges ranges_;
  std::array<std::atomic<uint64_t>, kTlbiKinds> counts_{};
};

}  // namespace mmu

#endif  // MMU_CORE_TLB_TLBI_H_
