// How long to wait between two chunks of paced work.

#ifndef MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_
#define MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/jobs/throttle.h"

namespace mmu {

// What one chunk was. A value.
struct ChunkWork {
  int64_t bytes = 0;
  int64_t tlb_flushes = 0;
  absl::Duration wall;
  absl::Duration stalled;  // meanwhile, the average of the VM's vCPUs
};

// Zero or more, and the limit that asks for it.
struct ThrottlePause {
  absl::Duration length;
  ThrottleLimit limit = ThrottleLimit::kPause;
};

// The longest of what is missing to the time that the chunk should have taken
// under each limit, and of `min_pause`.
ThrottlePause PauseAfter(const ChunkWork& chunk, const Throttle& throttle);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_
