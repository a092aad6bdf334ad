// Merging small mappings into huge ones, piece by piece: a loop over
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

// Works in pieces of the throttle's chunk size. Where memory can be mapped with
// 1 GiB pages, each whole GiB is a further piece after its parts, because only
// then can it become one mapping; without a limit that asks for pauses, such a
// GiB is not processed in parts. The job can be cancelled between pieces, and
// after each piece but the last it waits as its throttle says. Thread-safe.
// Must not outlive its VM, except for Progress and Cancel.
class RecoverJob {
 public:
  // A value.
  struct Progress {
    int64_t total_bytes = 0;
    int64_t done_bytes = 0;
    RecoverOutcome recovered;
    MmuCost cost;
    // The sleep due to each limit; none for kLockHold, whose waits are in
    // `cost`.
    std::array<absl::Duration, kThrottleLimits> throttled{};
    bool cancelled = false;  // Run ended before the last piece
  };

  // `ranges` are inside memslots, which must not change. Overlapping memory
  // counts once.
  RecoverJob(VmCore& vm, const std::vector<GfnRange>& ranges,
             const Throttle& throttle = {});

  // Runs to the end on the calling thread; OK also when cancelled. Call once.
  absl::Status Run();
  // Run ends at the next piece, and sleeps no more.
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
  // The total time that vCPUs have stalled.
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

// Cuts the ranges at multiples of `pages` pages.
std::vector<GfnRange> CutAt(const std::vector<GfnRange>& ranges,
                            uint64_t pages);

}  // namespace mmu

#endif  // MMU_CORE_VM_JOBS_RECOVER_JOB_H_
