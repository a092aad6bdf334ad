// The working set of a VM, from the first generation on.

#ifndef MMU_CORE_VM_CORE_TRACKED_WORKING_SET_H_
#define MMU_CORE_VM_CORE_TRACKED_WORKING_SET_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/working_set/working_set.h"

namespace mmu {

// Memory is not tracked, and takes no memory for it, until a generation is
// created. Thread-safe.
class TrackedWorkingSet {
 public:
  // The right to create a generation. One exists at a time.
  class Turn {
   public:
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    WorkingSet& working_set() const { return *working_set_; }
    // WorkingSet::Begin of the turn's generation.
    uint64_t BeginGeneration(int64_t now_nanos);
    // Whether others have cleared Accessed bits since the previous generation
    // began, or before the first. What they found young is missing in this
    // turn's generation. REQUIRES: BeginGeneration was called.
    bool OthersCleared() const;
    // Whether the working set was forgotten since the turn began.
    bool IsForgotten() const;

   private:
    friend class TrackedWorkingSet;
    Turn(TrackedWorkingSet& owner, std::shared_ptr<WorkingSet> working_set);

    TrackedWorkingSet& owner_;
    const std::shared_ptr<WorkingSet> working_set_;
    uint64_t clears_before_ = 0;
  };

  // Null if another turn lasts. Starts tracking if nothing is tracked yet. The
  // turn must not outlive this object.
  std::unique_ptr<Turn> TryTakeTurn() ABSL_LOCKS_EXCLUDED(mu_);

  // Null if nothing is tracked.
  std::shared_ptr<const WorkingSet> Find() const ABSL_LOCKS_EXCLUDED(mu_);
  // Stops tracking. The memory is freed as soon as the present turn and all
  // readers have ended; the turn is told (IsForgotten), and while it lasts
  // nobody takes another. The next generation is the first again.
  void Forget() ABSL_LOCKS_EXCLUDED(mu_);

  // To be called before each clear of Accessed bits that is not part of a turn.
  void NoteClear() { clears_.fetch_add(1, std::memory_order_relaxed); }

 private:
  mutable Mutex mu_;
  std::shared_ptr<WorkingSet> working_set_ ABSL_GUARDED_BY(mu_);
  bool has_turn_ ABSL_GUARDED_BY(mu_) = false;
  // The number of clears when the newest generation began.
  uint64_t clears_at_begin_ ABSL_GUARDED_BY(mu_) = 0;
  // Relaxed: a clear that goes on while a generation begins may belong to it or
  // to the one before.
  std::atomic<uint64_t> clears_ = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_VM_CORE_TRACKED_WORKING_SET_H_
