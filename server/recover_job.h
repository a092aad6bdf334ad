// Putting small mappings together to huge ones, piece by piece: a loop over
// mmu::Vm::RecoverHugePages that can be paced, watched and cancelled.

#ifndef SERVER_RECOVER_JOB_H_
#define SERVER_RECOVER_JOB_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/stats/mmu_cost.h"
#include "mmu_core/vm/throttle.h"
#include "mmu_core/vm/throttle_pause.h"
#include "mmu_core/vm/vm.h"

namespace mmud {

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
    mmu::Vm::Recovered recovered;
    mmu::MmuCost cost;
    // Sleep that each limit asked for; none for kLockHold, whose waits are in
    // `cost`.
    std::array<absl::Duration, mmu::kThrottleLimits> throttled{};
    bool cancelled = false;  // Run ended before the last piece
  };

  // `ranges` are inside memslots, which stay as they are. Where they overlap
  // the memory counts once.
  RecoverJob(mmu::Vm& vm, const std::vector<mmu::GfnRange>& ranges,
             const mmu::Throttle& throttle = {});

  // Runs to the end on the calling thread; OK also when cancelled. Call once.
  absl::Status Run();
  // Run ends at the next piece, and waits no more.
  void Cancel();
  Progress progress() const;
  const mmu::Throttle& throttle() const { return throttle_; }

 private:
  // A value.
  struct Piece {
    enum class Part : uint8_t {
      kAlone,
      kOfGib,  // of the next kGib
      kGib,
    };
    mmu::GfnRange range;
    int64_t bytes = 0;  // in the progress
    Part part = Part::kAlone;
  };

  static void AddPieces(const mmu::GfnRange& range, uint64_t pages,
                        Piece::Part part, std::vector<Piece>* pieces);
  static std::vector<Piece> PiecesOf(const mmu::Vm& vm,
                                     const std::vector<mmu::GfnRange>& ranges,
                                     const mmu::Throttle& throttle);
  // Time that all vCPUs together have stood still.
  int64_t StallNanos() const;
  void Sleep(const mmu::ThrottlePause& pause);

  mmu::Vm& vm_;
  const mmu::Throttle throttle_;
  const std::vector<Piece> pieces_;

  mutable mmu::Mutex mu_;  // leaf
  mmu::CondVar stopped_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  Progress progress_ ABSL_GUARDED_BY(mu_);
};

// The ranges cut at multiples of so many pages.
std::vector<mmu::GfnRange> CutAt(const std::vector<mmu::GfnRange>& ranges,
                                 uint64_t pages);

}  // namespace mmud

#endif  // SERVER_RECOVER_JOB_H_
