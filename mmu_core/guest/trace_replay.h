// Replays a recorded program on a vCPU.

#ifndef MMU_CORE_GUEST_TRACE_REPLAY_H_
#define MMU_CORE_GUEST_TRACE_REPLAY_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "mmu_core/guest/access_source.h"
#include "mmu_core/guest/first_touch_map.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/trace_stream.h"

namespace mmu {

struct TraceReplayOptions {
  // How often the program runs; each run is a new process with its own pages.
  // 0: for ever.
  uint64_t repeat_count = 1;
  // Ends the replay even in the middle of a run; 0 means no limit.
  uint64_t access_count = 0;
  PagePlacement placement = PagePlacement::kContiguous;
  uint64_t seed = 1;  // for kScattered
};

// Replays a trace in the pages of one vCPU's share of the memory. An access
// that crosses a page boundary of the program becomes two accesses, because the
// guest pages may not be neighbours. Thread-compatible.
//
// status() after the end:
//   RESOURCE_EXHAUSTED   one run touches more pages than the share has
//   FAILED_PRECONDITION  the share or the trace is empty
//   DATA_LOSS            the trace holds an impossible access
//   otherwise            the stream's own error
class TraceReplaySource final : public AccessSource {
 public:
  // REQUIRES: stream is not null and is at its start.
  TraceReplaySource(std::unique_ptr<TraceStream> stream, GpaSpace share,
                    const TraceReplayOptions& options);

  bool Next(GuestAccess* access) override;
  absl::Status status() const override { return status_; }

  // The number of completed runs.
  uint64_t completed_runs() const { return completed_runs_; }
  // The number of guest pages taken by all runs together.
  uint64_t first_touches() const;

 private:
  // Stores the next access of the program, of 1..4096 bytes, in `access`.
  bool NextOfProgram(GuestAccess* access);
  bool BeginNextRun();
  bool Translate(uint64_t program_address, uint64_t* gpa);
  bool End(absl::Status status);

  const std::unique_ptr<TraceStream> stream_;
  const TraceReplayOptions options_;
  std::unique_ptr<FirstTouchMap> map_;  // null if the share is empty
  GuestAccess rest_;  // the second half of a crossing access, if size_bytes > 0
  uint64_t done_ = 0;
  uint64_t done_at_run_start_ = 0;
  uint64_t completed_runs_ = 0;
  bool ended_ = false;
  absl::Status status_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_TRACE_REPLAY_H_
