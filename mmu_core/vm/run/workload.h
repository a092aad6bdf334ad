// A guest at work: one AccessSource per vCPU, run on the vCPUs' threads.

#ifndef MMU_CORE_VM_RUN_WORKLOAD_H_
#define MMU_CORE_VM_RUN_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/clock.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/stats/vcpu_stats.h"

namespace mmu {

struct WorkloadOptions {
  // sources[i] runs on vCPU i; there are at most as many as the VM has vCPUs.
  std::vector<std::unique_ptr<AccessSource>> sources;
  int64_t accesses_per_second = 0;  // per vCPU; 0 means as fast as it goes
  // For each vCPU, from when it may first run; later pauses count.
  absl::Duration max_duration = absl::InfiniteDuration();
};

struct WorkloadProgress {
  enum class State : uint8_t { kRunning, kDone, kStopped, kFailed };
  State state = State::kRunning;
  VcpuStatsSnapshot stats;  // since the workload started, all vCPUs
  absl::Duration running;   // wall time since the start, pauses included
  absl::Status error;       // why kFailed
  bool paused = false;
};

// A lost guest: it has its own page tables and cannot continue, so its VM must
// be made again. A value.
struct GuestLoss {
  int vcpu = 0;  // the first vCPU whose guest was lost
  MonotonicTime since;
  std::string message;  // the error of the guest
};

}  // namespace mmu

#endif  // MMU_CORE_VM_RUN_WORKLOAD_H_
