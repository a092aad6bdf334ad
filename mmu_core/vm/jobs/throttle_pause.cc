#include "mmu_core/vm/jobs/throttle_pause.h"

#include <algorithm>

#include "absl/time/time.h"
#include "mmu_core/base/address.h"
#include "mmu_core/vm/jobs/throttle.h"

namespace mmu {

ThrottlePause PauseAfter(const ChunkWork& chunk, const Throttle& throttle) {
  ThrottlePause pause{throttle.min_pause, ThrottleLimit::kPause};
  const auto consider = [&](absl::Duration wanted, ThrottleLimit by) {
    if (wanted - chunk.wall > pause.length) {
      pause = {wanted - chunk.wall, by};
    }
  };
  if (throttle.max_pages_per_second > 0) {
    const auto pages = static_cast<double>(chunk.bytes >> kPageShift);
    consider(absl::Seconds(pages /
                           static_cast<double>(throttle.max_pages_per_second)),
             ThrottleLimit::kRate);
  }
  if (throttle.max_flushes_per_second > 0) {
    consider(
        absl::Seconds(static_cast<double>(chunk.tlb_flushes) /
                      static_cast<double>(throttle.max_flushes_per_second)),
        ThrottleLimit::kFlush);
  }
  if (throttle.max_vcpu_stall_ratio > 0) {
    consider(chunk.stalled / throttle.max_vcpu_stall_ratio,
             ThrottleLimit::kStall);
  }
  pause.length = std::max(pause.length, absl::ZeroDuration());
  return pause;
}

}  // namespace mmu
