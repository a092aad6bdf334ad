// The limits on the pace of a long operation.

#ifndef MMU_CORE_VM_JOBS_THROTTLE_H_
#define MMU_CORE_VM_JOBS_THROTTLE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/sync/hold_limit.h"

namespace mmu {

// A value. Zero means "no such limit" except where a default is named.
struct Throttle {
  int64_t max_pages_per_second = 0;        // 4 KiB pages covered
  int64_t chunk_bytes = int64_t{2} << 20;  // work between two lock releases at
                                           // most; multiple of 2 MiB up to
                                           // 1 GiB
  absl::Duration max_lock_hold = kDefaultMaxLockHold;  // 10 us to 1 s
  absl::Duration min_pause = absl::ZeroDuration();     // between two chunks, at
                                                       // most 10 s
  int64_t max_flushes_per_second = 0;
  double max_vcpu_stall_ratio = 0;  // stall time / wall time, 0..1
};

// INVALID_ARGUMENT INVALID_THROTTLE with the field that breaks its rule.
absl::Status ValidateThrottle(const Throttle& throttle);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_THROTTLE_H_
