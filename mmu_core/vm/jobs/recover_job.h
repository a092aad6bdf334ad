// Putting small mappings together to huge ones, piece by piece: a loop over
// RecoverHugePages that can be paced, watched and cancelled.

#ifndef MMU_CORE_VM_JOBS_RECOVER_JOB_H_
#define MMU_CORE_VM_JOBS_RECOVER_JOB_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/core/vm_core.h"
#include "mmu_core/vm/jobs/throttle.h"
#include "mmu_core/vm/jobs/throttle_pause.h"

namespace mmu {

// Works in pieces of the throttle's chunk. Where memory can be mapped with
// 1 GiB, each whole GiB is a piece of its own once its parts are through,
// because only then it can become one mapping; without a limit that asks for
// pauses it is not worked on in parts. Pieces are the safe points, and after
// each but the last the job waits as its throttle says.
// Thread-safe. Must not outlive its VM, Progress and Cancel excepted.
class RecoverJob {
 public:
  // A value.
  struct Progress {
    int64_t total_bytes = 0;
    int64_t done_bytes = 0;
    RecoverOutcome recovered;
    MmuCost cost;
    // Sleep that each limit asked for; none for kLockHold, whose waits are in
    // `cost`.
    std::array<absl::Duration, kThrottleLimits> throttled{};
    bool cancelled = false;  // Run ended before the last piece
  };

  // `ranges` are inside memslots, which stay as they are. Where they overlap
  // the memory counts once.
  RecoverJob(VmCore& vm, const std::vector<GfnRange>& ranges,
             const Throttle& throttle = {});

  // Runs to the end on the calling thread; OK also when cancelled. Call once.
  absl::Status Run();
  // Run ends at the next piece, and waits no more.
  void Cancel();
  Progress progress() const;
  const Throttle& throttle() const { return throttle_; }

 private:
  // A value.
  struct Piece {
    enum class Part : uint8_t {
      kAlone,
      kOfGib,  // of the next kGib
      kGib,
    };
    GfnRange range;
    int64_t bytes = 0;  // in the progress
    Part part = Part::kAlone;
  };

  static void AddPieces(const GfnRange& range, uint64_t pages, Piece::Part part,
                        std::vector<Piece>* pieces);
  static std::vector<Piece> PiecesOf(const VmCore& vm,
                                     const std::vector<GfnRange>& ranges,
                                     const Throttle& throttle);
  // Time that all vCPUs together have stood still.
  int64_t StallNanos() const;
  void Sleep(const ThrottlePause& pause);

  VmCore& vm_;
  const Throttle throttle_;
  const std::vector<Piece> pieces_;

  mutable Mutex mu_;  // leaf
  CondVar stopped_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  Progress progress_ ABSL_GUARDED_BY(mu_);
};

// The ranges cut at multiples of so many pages.
std::vector<GfnRange> CutAt(const std::vector<GfnRange>& ranges,
                            uint64_t pages);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_RECOVER_JOB_H_
