// The working set of a VM at one time: how much memory was accessed how long
// ago.
//
// A scan of generation g visits each page once, between the generation's begin
// and its end, tests whether the page was accessed since the visit of
// generation g - 1, and clears the page's Accessed bit. A page is in the bin of
// g if g is the last generation that found it young. So the page was last
// accessed
//
//     after the begin of generation g - 1 and before the end of generation g,
//
// and a bin's ages are measured from these two times to the time of the
// snapshot. This holds if both scans visited the page; the generations'
// coverage, which the caller defines, says whether they did.

#ifndef MMU_CORE_WORKING_SET_WORKING_SET_SNAPSHOT_H_
#define MMU_CORE_WORKING_SET_WORKING_SET_SNAPSHOT_H_

#include <cstdint>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {

// The number of generations that are remembered.
inline constexpr uint64_t kKeptGenerations = kMaxGenerationAge + 1;

// What a scan found. A value.
struct GenerationTotals {
  uint64_t young_pages = 0;  // 4 KiB pages
  uint64_t mapped_pages = 0;
  uint32_t coverage = 0;  // flags of the caller; not interpreted here

  friend bool operator==(const GenerationTotals&,
                         const GenerationTotals&) = default;
};

// A value.
struct Generation {
  uint64_t sequence = 0;
  int64_t began_at_nanos = 0;
  // Nothing while the generation is open, that is while its scan runs.
  absl::optional<int64_t> ended_at_nanos;
  GenerationTotals totals;  // zeroes while it is open

  friend bool operator==(const Generation&, const Generation&) = default;
};

// The pages that a generation was the last to find young. A value.
struct WorkingSetBin {
  uint64_t sequence = 0;
  uint64_t pages = 0;
  // The time since the pages' last access: at least `min_age_nanos`, which is 0
  // for an open generation, and less than `max_age_nanos`. There is no maximum
  // in the bin of the oldest generation that is remembered, which has the pages
  // of all older generations, too. The first generation of all found pages that
  // were accessed at any time before it.
  int64_t min_age_nanos = 0;
  absl::optional<int64_t> max_age_nanos;

  uint64_t bytes() const { return pages << kPageShift; }
  friend bool operator==(const WorkingSetBin&, const WorkingSetBin&) = default;
};

// The pages that were accessed in a window of time, which ends at the end of
// the newest ended generation. A value.
//
// `pages` is an upper bound. It has every page whose generation ended within
// the window. The oldest of these generations may have found accesses from
// before the window, but none from before the begin of the generation before
// it. So no page is counted whose last access is further before the window than
// the time from the begin of one generation to the end of the next. The pages
// of an open generation are counted, too.
struct WorkingSetWindow {
  int64_t window_nanos = 0;
  uint64_t pages = 0;
  // Whether the window begins at or after the end of the oldest remembered
  // generation. If not, pages are counted that were accessed at any time before
  // the window.
  bool complete = false;

  uint64_t bytes() const { return pages << kPageShift; }
  friend bool operator==(const WorkingSetWindow&,
                         const WorkingSetWindow&) = default;
};

// A value.
struct WorkingSetSnapshot {
  // The remembered generations, the newest first; the first one may be open.
  std::vector<Generation> generations;
  // A bin for each of them, in the same order. A page is in one bin at most.
  std::vector<WorkingSetBin> bins;
  std::vector<WorkingSetWindow> windows;  // as requested
  // Pages of the memslots that no generation found young, mapped or not.
  uint64_t never_young_pages = 0;
  // The mapped pages among them: those that the newest ended generation found
  // mapped, less those in bins. Too low if pages in bins were unmapped since.
  uint64_t mapped_never_young_pages = 0;
  // The time since the end of the newest ended generation; nothing if none has
  // ended. Accesses in this time may be missing in all bins.
  absl::optional<int64_t> staleness_nanos;
};

// The snapshot at `now_nanos`. `generations` is as in WorkingSetSnapshot and
// contains all of the pages' generations, `windows_nanos` has the lengths of
// the requested windows.
WorkingSetSnapshot MakeWorkingSetSnapshot(
    std::vector<Generation> generations, const AgeHistogram& pages,
    int64_t now_nanos, absl::Span<const int64_t> windows_nanos);

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_WORKING_SET_SNAPSHOT_H_
