// The pause between two chunks of paced work.

#ifndef MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_
#define MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_

#include <cstdint>

#include "absl/time/time.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/vm/jobs/throttle.h"

namespace mmu {

// The measurements of one chunk. A value.
struct ChunkWork {
  int64_t bytes = 0;
  int64_t tlb_flushes = 0;
  absl::Duration wall;
  absl::Duration stalled;  // average stall of the VM's vCPUs meanwhile
};

// A pause of zero or more, and the limit that asks for it.
struct ThrottlePause {
  absl::Duration length;
  ThrottleLimit limit = ThrottleLimit::kPause;
};

// The longest of `min_pause` and, for each limit, the time by which the chunk
// was faster than the limit allows.
ThrottlePause PauseAfter(const ChunkWork& chunk, const Throttle& throttle);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_THROTTLE_PAUSE_H_
