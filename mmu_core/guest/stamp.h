// The value that a guest's write stores: the writing vCPU and the number of the
// write.
//
//   bits 63..48  vCPU index + 1 (so that no stamp is zero, and untouched
//                memory is never mistaken for a write)
//   bits 47..0   sequence number of the write on that vCPU, modulo 2^48

#ifndef MMU_CORE_GUEST_STAMP_H_
#define MMU_CORE_GUEST_STAMP_H_

#include <cstdint>

#include "mmu_core/base/check.h"

namespace mmu {

inline constexpr int kStampSequenceBits = 48;
inline constexpr uint64_t kStampSequenceMask =
    (uint64_t{1} << kStampSequenceBits) - 1;
inline constexpr uint32_t kMaxStampVcpus = 0xffff;

// Never zero. REQUIRES: vcpu_index < kMaxStampVcpus.
inline uint64_t MakeStamp(uint32_t vcpu_index, uint64_t sequence) {
  MMU_DCHECK(vcpu_index < kMaxStampVcpus);
  return (uint64_t{vcpu_index} + 1) << kStampSequenceBits |
         (sequence & kStampSequenceMask);
}

// True for every result of MakeStamp, false for zero.
constexpr bool IsStamp(uint64_t stamp) {
  return (stamp >> kStampSequenceBits) != 0;
}
// REQUIRES: IsStamp(stamp).
constexpr uint32_t StampVcpuIndex(uint64_t stamp) {
  return static_cast<uint32_t>((stamp >> kStampSequenceBits) - 1);
}
constexpr uint64_t StampSequence(uint64_t stamp) {
  return stamp & kStampSequenceMask;
}

}  // namespace mmu

#endif  // MMU_CORE_GUEST_STAMP_H_
