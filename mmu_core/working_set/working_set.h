// The generations of a VM's memory: which scan last found each page young.
//
// A scan of the Accessed bits is one generation:
//
//   working_set.SyncSlots(...)           // when memslots have changed
//   working_set.Begin(now)
//   working_set.Record(range, young...)  // for each range that was scanned
//   working_set.End(now, totals)
//
// From the generations, TakeSnapshot computes the working set, and
// ListHotRanges (working_set/hot_ranges.h) lists memory by its age. This class
// has no MMU, no thread and no clock.

#ifndef MMU_CORE_WORKING_SET_WORKING_SET_H_
#define MMU_CORE_WORKING_SET_WORKING_SET_H_

#include <array>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/working_set/slot_maps.h"
#include "mmu_core/working_set/working_set_snapshot.h"

namespace mmu {

// Thread-safe, except that the calls Begin, Record, RecordAll and End come one
// after the other. Times are monotonic, in nanoseconds. The mutex is held for
// looks at lists, and in SyncSlots for making maps; never for a pass over
// pages.
class WorkingSet {
 public:
  WorkingSet();
  WorkingSet(const WorkingSet&) = delete;
  WorkingSet& operator=(const WorkingSet&) = delete;

  // Tracks exactly `slots` from now on, whose ids are unique and whose ranges
  // do not overlap. MapsOfSlots (working_set/slot_maps.h) says which slots keep
  // what is known of their pages. Called before the first access to a new slot,
  // or at the latest before the Begin that follows. If there is not enough
  // memory: RESOURCE_EXHAUSTED RESOURCE_EXHAUSTED_MEMORY, and nothing changes.
  absl::Status SyncSlots(absl::Span<const TrackedSlot> slots)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Opens the next generation and returns its sequence number, the first is 1.
  // One call in kClampInterval passes over all pages. REQUIRES: no generation
  // is open; `now_nanos` is not before the end of the previous one.
  uint64_t Begin(int64_t now_nanos) ABSL_LOCKS_EXCLUDED(mu_);

  // The pages of `range` whose bits in `young` are set are young; bit 0 of
  // `young` is `first_gfn`. Pages outside of the slots are ignored: their slot
  // was deleted during the scan. REQUIRES: a generation is open; `young` has a
  // bit for each page of `range`.
  void Record(GfnRange range, absl::Span<const uint64_t> young, Gfn first_gfn)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The same with all pages of `range` young.
  void RecordAll(GfnRange range) ABSL_LOCKS_EXCLUDED(mu_);

  // Closes the open generation. REQUIRES: one is open; `now_nanos` is not
  // before its begin.
  void End(int64_t now_nanos, const GenerationTotals& totals)
      ABSL_LOCKS_EXCLUDED(mu_);

  // Passes over all pages. Pages that are recorded meanwhile may be in the bin
  // of their former generation or in that of the newest.
  WorkingSetSnapshot TakeSnapshot(int64_t now_nanos,
                                  absl::Span<const int64_t> windows_nanos) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // Nothing if that generation has not begun, or is not remembered any more.
  absl::optional<Generation> FindGeneration(uint64_t sequence) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // For readers of single pages; the newest generation may be open.
  GenerationView View() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Generation& At(uint64_t sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return kept_[sequence % kKeptGenerations];
  }
  const Generation& At(uint64_t sequence) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return kept_[sequence % kKeptGenerations];
  }
  bool IsOpen() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return newest_ > 0 && !At(newest_).ended_at_nanos.has_value();
  }
  // View, and checks that a generation is open.
  GenerationView OpenView() const ABSL_LOCKS_EXCLUDED(mu_);

  mutable Mutex mu_;
  uint64_t newest_ ABSL_GUARDED_BY(mu_) = 0;
  // By sequence % kKeptGenerations.
  std::array<Generation, kKeptGenerations> kept_ ABSL_GUARDED_BY(mu_);
  // Never null. The list is immutable; a change of slots replaces it.
  std::shared_ptr<const SlotMaps> slots_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_WORKING_SET_H_
